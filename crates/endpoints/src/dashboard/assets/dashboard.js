// Keeps an open page up to date: reads the event stream of the page, merges changed regions into it, and shows times.
// Without this script, pages and forms work, but do not change by themselves.

const POLL = 5000; // between two requests of a page without a stream
const SILENCE = 20000; // without an event, the stream counts as cut off

const root = document.documentElement;
const main = document.getElementById('main');
const banner = document.getElementById('banner');
const pause = document.getElementById('pause');
const liveText = document.getElementById('live-text');

let paused = sessionStorage.getItem('paused') === 'yes';
let stream = null; // the open event stream
let poller = null; // the timer of requests, while there is no stream
let silence = null; // the timer that notices a cut-off stream
let tag = main.dataset.tag; // of the content that the page shows
let asOf = Date.parse(main.dataset.now); // when the content was read, by the server's clock
let ahead = asOf - Date.now(); // how far the server's clock is ahead of the browser's

// ---- times

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
    if (Number.isNaN(at)) continue;
    const text = textOf(time, at, now);
    if (time.textContent !== text) time.textContent = text;
    const title = `${day.format(at)} ${clock.format(at)} ${offsetOf(at)}`;
    if (time.title !== title) time.title = title;
  }
}

// ---- merging

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

// What a user changes on the page.
function isOfUser(element, name) {
  return (name === 'open' && element.matches('details, dialog')) || (name === 'data-left' && element.matches('tr'));
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

// Rows of a list stay where they are. New ones wait behind a button, and ones that left are marked.
function hold(from, to) {
  const wanted = new Map([...to.children].map((row) => [row.id, row]));
  for (const row of from.children) {
    const now = wanted.get(row.id);
    if (now) {
      if (!row.isEqualNode(now)) merge(row, now);
      row.removeAttribute('data-left');
    } else row.setAttribute('data-left', '');
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
}

// ---- the state of the page

function say(text, isStale) {
  banner.hidden = !text;
  if (banner.textContent !== text) banner.textContent = text;
  main.toggleAttribute('data-stale', isStale);
}

function showState(name, text) {
  root.dataset.state = name;
  liveText.replaceChildren(text, ' · ', clock.format(asOf));
}

// The page shows older data, since `asOf`.
function stale(text) {
  say(text, true);
  root.dataset.state = 'stale';
  liveText.replaceChildren('Stale since ', clock.format(asOf));
}

function received(at) {
  asOf = at;
  ahead = at - Date.now();
}

// ---- live

function live() {
  stop();
  if (paused) return showState('paused', 'Paused');
  if (document.hidden) return;
  const parameters = new URLSearchParams({ at: main.dataset.at, tag });
  stream = new EventSource(`${main.dataset.live}?${parameters}`);
  stream.onmessage = ({ data }) => {
    const event = JSON.parse(data);
    if (event.isOver) return location.reload();
    listen();
    if (event.error) return stale(`The job store does not answer: ${event.error}. The page shows older data.`);
    received(Date.parse(event.at));
    tag = event.tag;
    for (const [id, html] of event.regions) showRegion(id, html);
    say('', false);
    showState('live', 'Live');
  };
  // A stream that is refused is closed. A stream that is cut off connects again by itself.
  stream.onerror = () => {
    if (stream.readyState === EventSource.CLOSED) poll();
    else stale('The connection is lost. The page shows older data and connects again.');
  };
  listen();
}

function listen() {
  clearTimeout(silence);
  silence = setTimeout(poll, SILENCE);
}

function stop() {
  stream?.close();
  stream = null;
  clearTimeout(silence);
  clearTimeout(poller);
}

// Reads the page again and again: there are too many streams, or something between browser and server holds them back.
async function poll() {
  stop();
  if (paused || document.hidden) return;
  try {
    const response = await fetch(location.href, { headers: { 'If-None-Match': `"${tag}"` }, cache: 'no-store' });
    if (response.status === 503) stale('The job store does not answer. The page shows older data.');
    else if (response.status !== 304 && !response.ok) return location.reload();
    else {
      if (response.status === 200) showPage(await response.text());
      received(Date.parse(response.headers.get('date')) || Date.now() + ahead);
      say('', false);
      showState('polling', `Every ${POLL / 1000} s`);
    }
  } catch {
    stale('The server does not answer. The page shows older data and tries again.');
  }
  if (!paused && !document.hidden) poller = setTimeout(poll, POLL);
}

function showPage(html) {
  const page = new DOMParser().parseFromString(html, 'text/html');
  tag = page.getElementById('main').dataset.tag;
  for (const region of page.querySelectorAll('[data-live].region')) showRegion(region.id, region.innerHTML);
}

// ---- start

// A page that does not change, such as the login, has no stream.
if (main.dataset.live && pause) {
  pause.hidden = false;
  pause.setAttribute('aria-pressed', paused);
  pause.onclick = () => {
    paused = !paused;
    sessionStorage.setItem('paused', paused ? 'yes' : 'no');
    pause.setAttribute('aria-pressed', paused);
    live();
  };
  document.addEventListener('visibilitychange', live);
  addEventListener('pagehide', stop);
  addEventListener('pageshow', ({ persisted }) => persisted && live());
  live();
}
setInterval(() => paused || document.hidden || showTimes(document), 1000);
showTimes(document);
