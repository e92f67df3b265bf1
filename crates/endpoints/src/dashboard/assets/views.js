// Filters of the list of jobs that this browser keeps by name.

const views = document.querySelector('[data-views]');
const VIEWS = `views of ${new URL(main.dataset.base, location.href).pathname}`;

function savedViews() {
  try {
    const saved = JSON.parse(kept.get(VIEWS) ?? '[]');
    return saved.filter(({ name, query }) => typeof name === 'string' && typeof query === 'string');
  } catch {
    return [];
  }
}

// The filter of the page. A cursor belongs to one moment.
function filterOfPage() {
  const query = new URLSearchParams(main.dataset.at.split('?')[1] ?? '');
  query.delete('cursor');
  return query.toString();
}

function showViews() {
  views.querySelectorAll('.saved').forEach((view) => view.remove());
  for (const { name, query } of savedViews()) {
    const view = document.createElement('span');
    view.className = 'saved';
    const link = document.createElement('a');
    link.textContent = name;
    link.href = `${views.dataset.views}?${query}`;
    if (query === filterOfPage()) link.setAttribute('aria-current', 'true');
    const remove = document.createElement('button');
    remove.type = 'button';
    remove.textContent = '×';
    remove.setAttribute('aria-label', `Remove the view ${name}`);
    remove.onclick = () => {
      saveViews(savedViews().filter((other) => other.name !== name));
      views.querySelector('a').focus();
    };
    view.append(link, remove);
    views.insertBefore(view, document.getElementById('save-view'));
  }
}

function saveViews(list) {
  kept.set(VIEWS, JSON.stringify(list));
  showViews();
}

if (views) {
  const part = document.getElementById('save-view');
  const form = part.querySelector('form');
  part.hidden = false;
  part.ontoggle = () => part.open && form.elements.view.focus();
  form.onsubmit = (event) => {
    event.preventDefault();
    const name = form.elements.view.value.trim();
    if (name) saveViews([...savedViews().filter((other) => other.name !== name), { name, query: filterOfPage() }]);
    form.reset();
    part.open = false;
    part.querySelector('summary').focus();
  };
  addEventListener('storage', showViews);
  showViews();
}
