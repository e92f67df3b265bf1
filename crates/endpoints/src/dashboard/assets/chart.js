// Shows the values of a chart at a minute: under the pointer, or by arrow keys in a chart that has the focus.

const cross = document.createElement('div');
cross.className = 'cross';
cross.hidden = true;
cross.setAttribute('aria-hidden', 'true'); // the chart itself has the values for readers who do not see the line
const crossText = document.createElement('div');
cross.append(crossText);
document.body.append(cross);

let crossed = null; // the chart with the line
let minute = 0; // which of its minutes

// The values of a chart: names, and a list of texts for each.
function linesOf(plot) {
  return [...plot.closest('.chart').querySelectorAll('[data-values]')].map(({ className, dataset }) => ({
    className,
    name: dataset.name,
    values: dataset.values.split(' ').map((value) => (value === '-' ? '–' : amount(Number(value), plot.dataset.unit))),
  }));
}

// As the server writes numbers and durations.
function amount(value, unit) {
  if (unit === 'jobs') return String(value).replace(/\B(?=(\d{3})+$)/g, '\u202f');
  if (value < 0.01) return `${(value * 1000).toFixed(1)} ms`;
  if (value < 1) return `${(value * 1000).toFixed(0)} ms`;
  if (value < 10) return `${value.toFixed(1)} s`;
  const two = (size, name, small, smallName) => {
    const rest = Math.floor((value % size) / small);
    return `${Math.floor(value / size)} ${name}${rest ? ` ${rest} ${smallName}` : ''}`;
  };
  if (value < 60) return `${Math.floor(value)} s`;
  if (value < 3600) return two(60, 'min', 1, 's');
  return value < 86400 ? two(3600, 'h', 60, 'min') : two(86400, 'd', 3600, 'h');
}

function minuteAt(plot, at, length) {
  const [from, to] = [Date.parse(plot.dataset.from), Date.parse(plot.dataset.to)];
  return from + ((to - from) * at) / Math.max(length - 1, 1);
}

// Makes the charts of an element reachable by the keyboard, and shows their current values.
function showCharts(inside) {
  for (const plot of inside.querySelectorAll('.plot')) {
    plot.tabIndex = 0;
    plot.setAttribute('role', 'slider');
    plot.setAttribute('aria-label', plot.querySelector('svg').getAttribute('aria-label'));
    const length = linesOf(plot)[0]?.values.length ?? 0;
    plot.setAttribute('aria-valuemin', 0);
    plot.setAttribute('aria-valuemax', length - 1);
    describe(plot, plot === crossed ? minute : length - 1);
  }
  if (crossed?.isConnected === false) hideCross();
  else if (crossed && !cross.hidden) showCross(crossed, minute);
}

function describe(plot, at) {
  const lines = linesOf(plot);
  const time = clock.format(minuteAt(plot, at, lines[0]?.values.length ?? 0));
  plot.setAttribute('aria-valuenow', at);
  plot.setAttribute('aria-valuetext', `${time}: ${lines.map(({ name, values }) => `${name} ${values[at] ?? '–'}`).join(', ')}`);
}

function showCross(plot, at) {
  const lines = linesOf(plot);
  const length = lines[0]?.values.length ?? 0;
  if (length === 0) return;
  crossed = plot;
  minute = Math.min(Math.max(at, 0), length - 1);
  const box = plot.getBoundingClientRect();
  const part = length > 1 ? minute / (length - 1) : 0;
  cross.hidden = false;
  Object.assign(cross.style, { left: `${box.left + scrollX + part * box.width}px`, top: `${box.top + scrollY}px`, height: `${box.height}px` });
  cross.classList.toggle('left', part > 0.5);
  const heading = document.createElement('b');
  heading.textContent = clock.format(minuteAt(plot, minute, length));
  const rows = lines.map(({ className, name, values }) => {
    const row = document.createElement('span');
    row.className = className;
    row.textContent = `${name} ${values[minute]}`;
    return row;
  });
  crossText.replaceChildren(heading, ...rows);
  describe(plot, minute);
}

function hideCross() {
  cross.hidden = true;
  crossed = null;
}

function follow({ target, clientX }) {
  const plot = target.closest?.('.plot');
  if (!plot) return crossed && crossed !== document.activeElement && hideCross();
  const box = plot.getBoundingClientRect();
  const length = linesOf(plot)[0]?.values.length ?? 0;
  showCross(plot, Math.round(((clientX - box.left) / box.width) * (length - 1)));
}

document.addEventListener('pointermove', follow);
document.addEventListener('pointerdown', follow);
document.addEventListener('focusin', ({ target }) => {
  if (target.matches('.plot:focus-visible')) showCross(target, Number(target.getAttribute('aria-valuenow')));
});
document.addEventListener('focusout', ({ target }) => target === crossed && hideCross());
document.addEventListener('keydown', (event) => {
  if (event.key === 'Escape' && crossed) return hideCross();
  const plot = event.target.closest?.('.plot');
  const last = plot && Number(plot.getAttribute('aria-valuemax'));
  const now = plot && Number(plot.getAttribute('aria-valuenow'));
  const steps = { ArrowLeft: now - 1, ArrowDown: now - 1, ArrowRight: now + 1, ArrowUp: now + 1, PageUp: now + 10, PageDown: now - 10, Home: 0, End: last };
  if (!plot || !(event.key in steps) || event.ctrlKey || event.altKey || event.metaKey) return;
  event.preventDefault();
  showCross(plot, steps[event.key]);
});
addEventListener('resize', hideCross);
showCharts(document);
