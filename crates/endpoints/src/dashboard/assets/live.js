// Keeps an open page up to date: reads its event stream, or reads the page again and again.

const POLL = 5000; // between two requests of a page without a stream
const SILENCE = 4000; // without an event, the stream counts as cut off: one is due every two seconds
const ANSWER = 500; // a request that takes longer is shown as a lost connection
const RETRY = 30000; // the longest time until a page that polls tries a stream again
const STREAMS = 4; // of all pages of this browser together

const banner = document.getElementById('banner');
const pause = document.getElementById('pause');
const liveText = document.getElementById('live-text');
const pageId = Math.random().toString(36).slice(2);

let paused = sessionStorage.getItem('paused') === 'yes';
let stream = null; // the open event stream
let poller = null; // the timer of requests, while there is no stream
let silence = null; // the timer that notices a cut-off stream
let place = null; // which of the browser's streams is this page's
let round = 0; // changes when a stream or a request has become useless
let tried = 0; // when the page tried to open a stream
let patience = POLL; // until the next try; doubled by each one, until a stream has an event
let tag = main.dataset.tag; // of the content that the page shows

// A reload, or a link that someone copies, must not say again what an action did.
function forgetNotice() {
  const address = new URL(location.href);
  if (!address.searchParams.has('notice')) return;
  address.searchParams.delete('notice');
  history.replaceState(null, '', address);
}

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

// Over HTTP/1.1 a browser opens at most six connections to a server, for all its pages together. Streams take four of them, so
// that pages can load; a further visible page polls. A page that ended without notice loses its place after a while.
function takePlace() {
  const [navigation] = performance.getEntriesByType('navigation');
  if (!navigation?.nextHopProtocol.startsWith('http/1')) return true;
  for (let at = 0; at < STREAMS; at++) {
    const [owner, until] = (kept.get(`stream ${at}`) ?? '').split(' ');
    if (owner !== pageId && until > Date.now()) continue;
    place = at;
    keepPlace();
    return true;
  }
  return false;
}

function keepPlace() {
  if (place !== null) kept.set(`stream ${place}`, `${pageId} ${Date.now() + 3 * SILENCE}`);
}

function leavePlace() {
  if (place !== null) kept.set(`stream ${place}`, null);
  place = null;
}

function live() {
  stop();
  if (paused) return showState('paused', 'Paused');
  if (document.hidden) return;
  tried = Date.now();
  if (!takePlace()) return poll();
  const parameters = new URLSearchParams({ at: main.dataset.at, tag });
  stream = new EventSource(`${main.dataset.live}?${parameters}`);
  stream.onmessage = ({ data }) => {
    const event = JSON.parse(data);
    if (event.isOver) return location.reload();
    listen();
    keepPlace();
    patience = POLL;
    tag = event.tag;
    const error = event.error && `The job store does not answer: ${event.error}.`;
    if (error && !tag) return stale(`${error} The page shows older data.`);
    received(Date.parse(event.at));
    for (const [id, html] of event.regions) showRegion(id, html);
    // A page without data of the store has an error and is up to date.
    say(error ?? '', false);
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
  round++;
  stream?.close();
  stream = null;
  leavePlace();
  clearTimeout(silence);
  clearTimeout(poller);
}

// Reads the page again: there are too many streams, or something between browser and server holds them back.
async function poll() {
  stop();
  if (paused || document.hidden) return;
  const own = round;
  const lost = () => stale('The server does not answer. The page shows older data and tries again.');
  const late = setTimeout(lost, ANSWER);
  let isHealed = false;
  try {
    const headers = { 'If-None-Match': `"${tag}"` };
    const response = await fetch(location.href, { headers, cache: 'no-store', signal: AbortSignal.timeout(2 * POLL) });
    const html = response.status === 200 ? await response.text() : null;
    if (own !== round) return;
    if (response.status === 503) stale('The job store does not answer. The page shows older data.');
    else if (response.status !== 304 && !response.ok) return location.reload();
    else {
      isHealed = root.dataset.state === 'stale';
      if (html !== null) showPage(html);
      received(Date.parse(response.headers.get('date')) || Date.now() + ahead);
      say('', false);
      showState('polling', `Every ${POLL / 1000} s`);
    }
  } catch {
    if (own !== round) return;
    lost();
  } finally {
    clearTimeout(late);
  }
  const isDue = root.dataset.state === 'polling' && Date.now() - tried > patience;
  if (isDue) patience = Math.min(2 * patience, RETRY);
  if (isHealed || isDue) live();
  else poller = setTimeout(poll, POLL);
}

function showPage(html) {
  const page = new DOMParser().parseFromString(html, 'text/html');
  tag = page.getElementById('main').dataset.tag;
  for (const region of page.querySelectorAll('[data-live].region')) showRegion(region.id, region.innerHTML);
}

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
  // Another page left its place. The pages that poll try at different times.
  addEventListener('storage', ({ key, newValue }) => {
    const isFree = newValue === null && key?.startsWith(kept.key('stream'));
    if (isFree && !stream) setTimeout(() => stream || live(), Math.random() * 500);
  });
  addEventListener('pageshow', ({ persisted }) => persisted && live());
  live();
}
setInterval(() => paused || document.hidden || showTimes(document), 1000);
showTimes(document);

forgetNotice();

// A browser sends the session only with requests of this site. Over plain HTTP, the server cannot see that a link of another
// site led here, and shows the login although there is a session.
if (document.querySelector('[data-login]')) {
  fetch(location.href, { method: 'HEAD', cache: 'no-store' }).then(({ ok }) => ok && location.reload(), () => {});
}
