import { io } from "/socket.io-client.js";

const ROOMS = ["lobby", "rust", "random"];
const TYPING_SHOWN = 2_500;

const $ = (id) => document.getElementById(id);
const settings = new URLSearchParams(location.search);

// `?transport=polling` and `?transport=websocket` do without the other.
const transport = settings.get("transport");
const socket = io({ transports: transport ? [transport] : undefined, reconnectionDelay: 300, reconnectionDelayMax: 2_000 });

let room = roomOfPage();
let name = settings.get("name") ?? localStorage.getItem("name") ?? `guest ${Math.floor(Math.random() * 900 + 100)}`;
let worker = null;
let shown = new Set();
let typing = new Map();

function roomOfPage() {
  return decodeURIComponent(location.hash.slice(1)) || ROOMS[0];
}

// === the room ===

async function join() {
  const asked = room;
  const welcome = await socket.emitWithAck("join", { name, room });
  // Somebody may have gone on to another room meanwhile.
  if (asked !== room) return;
  if (worker !== null && worker !== welcome.worker) note(`worker ${welcome.worker} serves you now`);
  worker = welcome.worker;
  $("kill").hidden = !welcome.may_kill;
  welcome.messages.forEach(show);
  showPeople(welcome.people);
  showStatus();
}

function enter(next) {
  room = next;
  shown = new Set();
  typing = new Map();
  $("messages").replaceChildren();
  $("title").textContent = `#${room}`;
  document.title = `#${room}`;
  showRooms();
  showTyping();
  if (socket.connected) join();
}

function showRooms() {
  const all = ROOMS.includes(room) ? ROOMS : [...ROOMS, room];
  $("rooms").replaceChildren(...all.map((name) => {
    const button = element("button", "", `#${name}`);
    button.type = "button";
    if (name === room) button.setAttribute("aria-current", "true");
    button.onclick = () => (location.hash = name);
    return wrap("li", button);
  }));
}

function showPeople(people) {
  $("count").textContent = people.length;
  $("people").replaceChildren(...people.map((person) => {
    const item = wrap("li", element("span", "who", person.id === socket.id ? `${person.name} (you)` : person.name), chip(person.worker));
    item.dataset.worker = person.worker;
    return item;
  }));
}

function show(message) {
  if (message.room !== room || shown.has(message.id)) return;
  shown.add(message.id);
  const list = $("messages");
  const atEnd = list.scrollHeight - list.scrollTop - list.clientHeight < 80;
  const time = element("time", "", new Date(message.at).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" }));
  const head = wrap("div", element("span", "name", message.name), chip(message.worker), time);
  head.className = "head";
  const item = wrap("li", head, element("div", "text", message.text));
  item.className = message.name === name ? "mine" : "";
  item.dataset.at = message.at;
  item.dataset.worker = message.worker;
  // Nearly always at the end: what was said last comes last.
  const later = [...list.children].findLast((other) => Number(other.dataset.at) <= message.at);
  if (later) later.after(item);
  else list.prepend(item);
  if (atEnd) list.scrollTop = list.scrollHeight;
}

function note(text) {
  const item = element("li", "note", text);
  item.dataset.at = Date.now();
  $("messages").append(item);
  $("messages").scrollTop = $("messages").scrollHeight;
}

function showTyping() {
  const names = [...typing.keys()];
  $("typing").textContent = names.length ? `${names.join(", ")} ${names.length > 1 ? "are" : "is"} typing …` : "";
}

function showStatus() {
  const way = socket.io.engine?.transport?.name;
  $("status").dataset.state = socket.connected && worker !== null ? "on" : "off";
  $("state").textContent = socket.connected && worker !== null ? `worker ${worker} · ${way}` : "connecting …";
}

// === what the server says ===

socket.on("connect", () => {
  socket.io.engine.on("upgrade", showStatus);
  join();
});
socket.on("disconnect", showStatus);
socket.on("message", (message) => {
  typing.delete(message.name);
  showTyping();
  show(message);
});
socket.on("people", (news) => {
  if (news.room === room) showPeople(news.people);
});
socket.on("typing", (who) => {
  clearTimeout(typing.get(who));
  typing.set(who, setTimeout(() => { typing.delete(who); showTyping(); }, TYPING_SHOWN));
  showTyping();
});

// === what somebody does ===

let toldTyping = 0;
$("text").oninput = () => {
  if (Date.now() - toldTyping > TYPING_SHOWN / 2) {
    toldTyping = Date.now();
    socket.volatile.emit("typing");
  }
};
$("composer").onsubmit = (event) => {
  event.preventDefault();
  const text = $("text").value;
  if (!text.trim()) return;
  // Without a connection it is sent as soon as there is one, after the room has been joined again.
  if (socket.connected) socket.emit("say", text, () => {});
  else socket.once("connect", () => socket.emit("say", text, () => {}));
  $("text").value = "";
  toldTyping = 0;
};
$("new-room").onsubmit = (event) => {
  event.preventDefault();
  const wanted = event.target.room.value.trim().replace(/^#+/, "").toLowerCase();
  if (wanted) location.hash = wanted;
  event.target.reset();
};
$("name").onchange = () => {
  name = $("name").value.trim() || name;
  $("name").value = name;
  localStorage.setItem("name", name);
  if (socket.connected) join();
};
$("kill").onclick = () => {
  note(`worker ${worker} dies …`);
  socket.emit("kill");
};
$("menu").onclick = () => toggle(true);
$("shade").onclick = () => toggle(false);
window.onhashchange = () => {
  toggle(false);
  enter(roomOfPage());
};

function toggle(open) {
  document.body.classList.toggle("open", open);
  $("menu").setAttribute("aria-expanded", open);
}

// === pieces ===

function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.textContent = text;
  return made;
}

function wrap(tag, ...children) {
  const made = document.createElement(tag);
  made.append(...children);
  return made;
}

/** Each worker has a colour of its own. */
function chip(worker) {
  const made = element("span", "worker", `worker ${worker}`);
  made.style.setProperty("--hue", (worker * 137 + 210) % 360);
  return made;
}

$("name").value = name;
enter(room);
