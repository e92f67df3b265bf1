// The parts of the script are one module: the binary joins them. Without it, pages and forms work, but do not change by themselves.
// This part shows times, by the server's clock, and keeps what a user chose.

const root = document.documentElement;
const main = document.getElementById('main');

let asOf = Date.parse(main.dataset.now); // when the content was read, by the server's clock
let ahead = asOf - Date.now(); // how far the server's clock is ahead of the browser's

const zone = root.dataset.zone === 'utc' ? { timeZone: 'UTC' } : {};
const clock = new Intl.DateTimeFormat([], { hour: '2-digit', minute: '2-digit', second: '2-digit', hourCycle: 'h23', ...zone });
const day = new Intl.DateTimeFormat('sv', { dateStyle: 'short', ...zone }); // 2026-11-28
const offset = new Intl.DateTimeFormat('en', { timeZoneName: 'longOffset', ...zone });
const offsetOf = (at) => offset.formatToParts(at).find((part) => part.type === 'timeZoneName').value.replace('GMT', 'UTC');

function duration(seconds) {
  if (seconds < 60) return `${Math.floor(seconds)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h`;
  return `${Math.floor(seconds / 86400)} d`;
}

function textOf(time, at, now) {
  const passed = (now - at) / 1000;
  if (time.dataset.as === 'age') return duration(Math.max(passed, 0));
  if (time.dataset.as === 'ago') return passed < 0 ? `in ${duration(-passed)}` : passed < 1 ? 'now' : `${duration(passed)} ago`;
  const date = day.format(at);
  return date === day.format(now) ? clock.format(at) : `${date} ${clock.format(at)}`;
}

// Writes the times inside an element, by the server's clock.
function showTimes(inside) {
  const now = Date.now() + ahead;
  for (const time of inside.querySelectorAll('time')) {
    const at = Date.parse(time.dateTime);
    // A row that the server no longer sends stays as it was.
    if (Number.isNaN(at) || time.closest('tr[data-left]')) continue;
    const text = textOf(time, at, now);
    if (time.textContent !== text) time.textContent = text;
    const title = `${day.format(at)} ${clock.format(at)} ${offsetOf(at)}`;
    if (time.title !== title) time.title = title;
  }
}

// The server gives and takes times in UTC. A form's field for a time shows them in the zone of the page.
const minuteOf = new Intl.DateTimeFormat('sv', { dateStyle: 'short', timeStyle: 'short', ...zone }); // 2026-11-28 12:04
for (const field of document.querySelectorAll('input[type=datetime-local]')) {
  const given = field.dataset.at ?? '';
  if (given) field.value = minuteOf.format(Date.parse(given)).replace(' ', 'T');
  const shown = field.value;
  field.form.addEventListener('formdata', ({ formData }) => {
    const chosen = field.value && new Date(zone.timeZone ? `${field.value}Z` : field.value).toISOString();
    // A field that was not changed keeps its seconds.
    formData.set(field.name, field.value === shown ? given : chosen);
  });
}

// Values that this browser keeps for all dashboards of this server. A browser that keeps nothing has none.
const kept = {
  key: (name) => `async-endpoints ${name}`,
  get(name) {
    try {
      return localStorage.getItem(this.key(name));
    } catch {
      return null;
    }
  },
  set(name, value) {
    try {
      if (value === null) localStorage.removeItem(this.key(name));
      else localStorage.setItem(this.key(name), value);
    } catch {
      // The browser keeps nothing.
    }
  },
};
