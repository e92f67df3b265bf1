// Shortcuts of single keys, which a user can switch off.

const keys = document.getElementById('keys');
// A closed dialog can keep the focus on its checkbox for a moment.
const isTyping = (target) => target.matches?.('input:not([type="checkbox"]), select, textarea, [contenteditable]');

function useKey(key) {
  const page = /^[1-9]$/.test(key) && document.querySelectorAll('nav[aria-label="Pages"] a')[key - 1];
  if (page) return page.click();
  if (key === '?') return keys.showModal();
  if (key === 'p') return pause.hidden || pause.click();
  if (key === 'n') return document.querySelector('button.new')?.click();
  if (key !== '/') return;
  const find = document.querySelector('form[role="search"] input[name="q"]');
  if (find) find.focus();
  else location.href = `${main.dataset.base}/jobs#find`;
}

if (keys) {
  const use = document.getElementById('use-keys');
  const open = document.getElementById('show-keys');
  use.checked = kept.get('keys') !== 'off';
  use.onchange = () => kept.set('keys', use.checked ? null : 'off');
  open.hidden = false;
  open.onclick = () => keys.showModal();
  document.addEventListener('keydown', (event) => {
    const isPlain = !event.ctrlKey && !event.altKey && !event.metaKey && !event.isComposing && !event.repeat;
    if (!isPlain || !use.checked || keys.open || isTyping(event.target) || !/^[?/pn1-9]$/.test(event.key)) return;
    event.preventDefault();
    useKey(event.key);
  });
  if (location.hash === '#find') document.querySelector('form[role="search"] input[name="q"]')?.focus();
}
