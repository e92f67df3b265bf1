// Merges changed regions into the page.

// Changes `from` into `to` in place, so that focus, selection, scrolling and typed text stay.
function merge(from, to) {
  for (const { name, value } of to.attributes) {
    if (from.getAttribute(name) !== value && !isOfUser(from, name)) from.setAttribute(name, value);
  }
  for (const { name } of [...from.attributes]) {
    if (!to.hasAttribute(name) && !isOfUser(from, name)) from.removeAttribute(name);
  }
  if (from.hasAttribute('data-hold')) hold(from, to);
  else mergeChildren(from, to);
}

// What a user or the script changes on the page.
function isOfUser(element, name) {
  return (
    (name === 'open' && element.matches('details, dialog')) ||
    (name === 'data-left' && element.matches('tr')) ||
    (/^(role|tabindex|aria-.*)$/.test(name) && element.matches('.plot'))
  );
}

const isSame = (a, b) => a.nodeType === b.nodeType && a.nodeName === b.nodeName && (a.id ?? '') === (b.id ?? '');

function mergeChildren(from, to) {
  let at = from.firstChild;
  for (const wanted of [...to.childNodes]) {
    let found = at && isSame(at, wanted) ? at : null;
    if (!found && wanted.id) found = [...from.children].find((child) => isSame(child, wanted));
    if (!found) from.insertBefore(wanted, at);
    else {
      if (found !== at) from.insertBefore(found, at);
      else at = at.nextSibling;
      if (found.nodeType !== Node.ELEMENT_NODE) {
        if (found.data !== wanted.data) found.data = wanted.data;
      } else if (!found.isEqualNode(wanted)) merge(found, wanted);
    }
  }
  while (at) {
    const next = at.nextSibling;
    at.remove();
    at = next;
  }
}

// Rows of a list stay where they are. New ones wait behind a button. Ones that left the list or its page are marked, and no longer
// change.
function hold(from, to) {
  const wanted = new Map([...to.children].map((row) => [row.id, row]));
  for (const row of from.children) {
    const now = wanted.get(row.id);
    if (now) {
      if (!row.isEqualNode(now)) merge(row, now);
      row.removeAttribute('data-left');
    } else {
      row.setAttribute('data-left', '');
      row.title = 'No longer updated: the job left the list or its page.';
    }
    wanted.delete(row.id);
  }
  offer(from, to, wanted.size);
}

function offer(from, to, count) {
  const list = from.closest('section');
  let button = list.querySelector('button.new');
  if (count === 0) return button?.remove();
  if (!button) {
    button = document.createElement('button');
    button.type = 'button';
    button.className = 'new';
    list.prepend(button);
  }
  const text = `${count} new`;
  if (button.textContent !== text) button.textContent = text;
  button.onclick = () => {
    button.remove();
    mergeChildren(from, to);
  };
}

function showRegion(id, html) {
  const region = document.getElementById(id);
  // The page was a failure, or has other regions than this one.
  if (!region) return location.reload();
  if (region.querySelector('dialog[open]')) return;
  const template = document.createElement('template');
  template.innerHTML = html;
  showTimes(template.content);
  // The button of a list is not part of the server's page.
  const button = region.querySelector('button.new');
  if (button) template.content.querySelector('section')?.prepend(button.cloneNode(true));
  const log = region.querySelector('.log');
  const isAtEnd = log && log.scrollTop + log.clientHeight >= log.scrollHeight - 4;
  mergeChildren(region, template.content);
  if (isAtEnd) log.scrollTop = log.scrollHeight;
  showCharts(region);
}
