// Sections are fetched anew when the server says that they changed. Without this script
// pages are whole, and are loaded again every ten seconds.
const sections = () => [...document.querySelectorAll("[data-topics]")];
const lost = document.querySelector(".lost");
let due = new Set(), busy = false, tags = {}, stream;

// mark notes the sections that change with these topics.
function mark(topics) {
  for (const s of sections()) {
    const own = s.dataset.topics.split(" ");
    if (s.id && own[0] && topics.some((t) => t === "all" || own.includes(t))) due.add(s.id);
  }
  swap();
}

// swap fetches what is due, and puts it in the place of what is there.
async function swap() {
  if (busy || !due.size || document.hidden) return;
  busy = true;
  const parts = [...due].filter((id) => !editing(document.getElementById(id))).join(" ");
  due = new Set();
  try {
    if (parts) {
      const answer = await fetch(location.pathname + location.search, { headers: { "Skep-Parts": parts, "If-None-Match": tags[parts] || "" }, cache: "no-store" });
      if ([401, 403, 404].includes(answer.status)) location.reload();
      lost.hidden = answer.ok || answer.status === 304;
      if (answer.ok) {
        tags = { ...tags, [parts]: answer.headers.get("Etag") };
        const box = document.createElement("template");
        box.innerHTML = await answer.text();
        for (const fresh of [...box.content.children]) replace(document.getElementById(fresh.id), fresh);
      }
    }
  } catch { /* the stream says when there is a connection again */ }
  busy = false;
  setTimeout(swap, 500);
}

// editing tells whether somebody types there.
function editing(section) {
  const at = document.activeElement;
  return section && section.contains(at) && at.matches("input, textarea, select");
}

function replace(old, fresh) {
  if (!old || old.isEqualNode(fresh)) return;
  const open = [...old.querySelectorAll("details[open]")].map((d) => d.id);
  const at = old.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
  const left = old.scrollLeft;
  for (const id of open) fresh.querySelector(`details[id="${CSS.escape(id)}"]`)?.setAttribute("open", "");
  if (old.matches(".health")) { // Only what changed is announced.
    for (const part of [".verdict", ".source"]) {
      const [was, is] = [old.querySelector(part), fresh.querySelector(part)];
      if (was.innerHTML !== is.innerHTML) was.innerHTML = is.innerHTML;
      was.className = is.className;
    }
    old.className = fresh.className;
    return;
  }
  old.replaceWith(fresh);
  fresh.scrollLeft = left;
  if (at) [...fresh.querySelectorAll("a[href]")].find((a) => a.getAttribute("href") === at)?.focus({ preventScroll: true });
}

// listen follows the server's stream while the page can be seen.
function listen() {
  if (stream || document.hidden || !document.querySelector("#health")) return;
  stream = new EventSource("/console/live");
  stream.addEventListener("change", (e) => mark(e.data.split(" ")));
  stream.onopen = () => { lost.hidden = true; };
  stream.onerror = () => {
    lost.hidden = false;
    if (stream?.readyState === EventSource.CLOSED) {
      stream = null;
      mark(["all"]); // Why there is none any more is said by the page.
      setTimeout(listen, 2000);
    }
  };
}
document.addEventListener("visibilitychange", () => {
  if (!document.hidden) return listen(), mark(["all"]);
  stream?.close();
  stream = null;
});
addEventListener("pagehide", () => stream?.close());
listen();
if (!document.querySelector("#health")) setTimeout(() => location.reload(), 5000);

// The filter is the server's; typing asks anew.
const box = document.querySelector("form[role=search] input");
let typing;
box?.addEventListener("input", () => {
  clearTimeout(typing);
  typing = setTimeout(() => {
    const url = new URL(location);
    box.value ? url.searchParams.set("q", box.value) : url.searchParams.delete("q");
    history.replaceState(null, "", url);
    tags = {};
    mark(["all"]);
  }, 200);
});

// Keys.
const keys = document.querySelector("#keys");
let before = "";
document.addEventListener("keydown", (e) => {
  if (e.ctrlKey || e.metaKey || e.altKey) return;
  if (e.target.matches?.("input, textarea, select")) {
    if (e.key === "Escape") e.target.blur();
    return;
  }
  const go = before === "g" && [...keys.querySelectorAll("dd")].find((d) => d.previousElementSibling.textContent === "g " + e.key);
  before = e.key;
  if (go) {
    const link = [...document.querySelectorAll("nav a")].find((a) => a.textContent === go.textContent);
    if (link) location.href = link.href;
  } else if (e.key === "j" || e.key === "k") {
    const rows = [...document.querySelectorAll("[data-row]")].filter((r) => r.offsetParent);
    const at = rows.indexOf(document.activeElement);
    rows[Math.max(0, Math.min(rows.length - 1, e.key === "j" ? at + 1 : at - 1))]?.focus();
  } else if (e.key === "/" && box) {
    e.preventDefault();
    box.focus();
    box.select();
  } else if (e.key === "?") {
    keys.showModal();
  }
});

// Logs: lines come as they are written, and are shown ten times a second: to lay each out by itself takes a browser
// half a minute for 5,000, which is how many the list keeps.
const log = document.querySelector(".log[data-follow]");
if (log) {
  const state = document.querySelector("#logstate"), most = 5000;
  const lines = new EventSource(log.dataset.follow);
  let first = true, waiting = [];
  const show = () => {
    const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
    log.insertAdjacentHTML("beforeend", waiting.slice(-most).join(""));
    waiting = [];
    while (log.childElementCount > most) log.firstElementChild.remove();
    if (atEnd) log.scrollTop = log.scrollHeight;
  };
  lines.onopen = () => { first = true; state.textContent = "Following."; };
  lines.onmessage = (e) => {
    if (first) log.replaceChildren(), waiting = [];
    first = false;
    if (!waiting.length) setTimeout(show, 100);
    if (waiting.push(e.data) > 2 * most) waiting = waiting.slice(-most);
  };
  lines.addEventListener("end", (e) => { state.textContent = e.data; lines.close(); });
  lines.onerror = () => { if (lines.readyState === EventSource.CLOSED) state.textContent = "The lines have ended; load the page again to go on."; };
  log.scrollTop = log.scrollHeight;
  addEventListener("pagehide", () => lines.close());
}
