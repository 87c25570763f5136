// A reader's page: one image, or two, at a time; each answer is kept in the browser at once.

const study = report; // see canvas.js
const STORE = `reader-study:${study.study}:${study.reader}`;
const CHOICES = { left: "Left", equal: "Equal", right: "Right" };
const ratings = study.protocol === "rating";

let answers = {}; // by item: { values, choice, seconds }
let kept = true;
try {
  answers = JSON.parse(localStorage.getItem(STORE) ?? "{}");
} catch { kept = false; }

function keep() {
  try {
    localStorage.setItem(STORE, JSON.stringify(answers));
  } catch { kept = false; }
}

// The same text as in answers.py; FNV-1a of 64 bits finds what was changed by accident.
function checksum(rows) {
  const text = rows.map(({ item, values, choice }) =>
    [item, ...(ratings ? study.criteria.map((name) => values[name]) : [choice])].join(" ")).join("\n");
  let hash = 0xcbf29ce484222325n;
  for (const byte of new TextEncoder().encode(text)) hash = ((hash ^ BigInt(byte)) * 0x100000001b3n) & 0xffffffffffffffffn;
  return hash.toString(16).padStart(16, "0");
}

const isDone = (item) => item.id in answers && (!ratings || study.criteria.every((name) => name in answers[item.id].values));
const done = () => study.items.filter(isDone).length;

function exported() {
  const rows = study.items.filter(isDone).map((item) => ({ item: item.id, ...answers[item.id] }));
  const { study: name, reader, protocol } = study;
  return { study: name, reader, protocol, complete: rows.length === study.items.length, answers: rows, checksum: checksum(rows) };
}

function save() {
  const text = JSON.stringify(exported(), null, 1);
  const link = element("a", { href: URL.createObjectURL(new Blob([text], { type: "application/json" })), download: `answers_${study.reader}.json` });
  link.click();
}

async function load(file) {
  let given = null;
  try {
    given = JSON.parse(await file.text());
  } catch { /* told below */ }
  if (given?.study !== study.study || given?.reader !== study.reader || given?.checksum !== checksum(given.answers ?? [])) {
    theReader.say(`${file.name} has no answers of this study by reader ${study.reader}, or was changed: it was not loaded.`);
    return;
  }
  for (const { item, ...answer } of given.answers) answers[item] = answer;
  keep();
  theReader.go();
}

class Reader {
  constructor() {
    this.shown = [];
    this.images = new Map(); // canvas to { top, white }
    this.grid = div("panels");
    this.heading = element("h2", {});
    this.controls = div("answers");
    this.message = element("p", { class: "legend", role: "status", "aria-live": "polite" });
    const file = element("input", { type: "file", accept: ".json", id: "load", hidden: true, on: { change: () => load(file.files[0]) } });
    const tools = div("row",
      button("Undo (Backspace)", () => this.undo(), { id: "undo" }), button("Reset view (0)", () => this.resetView(), { id: "reset" }),
      button("Save answers", save, { id: "save" }), button("Load answers", () => file.click()), file);
    const help = fold("Mouse and keys", pairList(Object.entries({
      [ratings ? "1 to 4" : "left, down, right"]: ratings ? "the score of the marked criterion" : "the left is better, equal, the right is better",
      "Backspace": "undo", "wheel, + and −": "zoom", "drag": "move", "right drag or shift drag, [ ] b d": "window", "0": "reset zoom and window",
    })));
    this.node = element("section", { tabindex: "0", "aria-label": "Study" }, this.heading, this.grid, this.controls, tools, this.message, help);
    document.querySelector("main").append(this.node);
    document.addEventListener("keydown", (event) => this.key(event));
    new ResizeObserver(() => this.update()).observe(this.grid);
    if (!kept) this.say("This browser keeps nothing: save your answers before you close the page.");
  }

  say(text) { this.message.textContent = text; }

  // The next item without an answer, or one that is named.
  async go(index = study.items.findIndex((item) => !isDone(item))) {
    this.index = index;
    document.getElementById("counts").textContent = `Reader ${study.reader} · ${done()} of ${study.items.length}`;
    Object.assign(document.getElementById("progress"), { max: study.items.length, value: done() });
    this.grid.replaceChildren();
    this.controls.replaceChildren();
    this.node.dataset.item = "";
    if (index < 0) {
      this.heading.textContent = "Done. Thank you! Save your answers and send the file to the organizer.";
      this.node.dataset.item = "done";
      return;
    }
    const item = study.items[index];
    this.item = item;
    const places = ratings ? [item.images[0]] : [item.images[0], item.images[1]];
    const names = ratings ? ["Image"] : ["Left", "Right"];
    if (item.beside) { places.push(item.beside); names.push("Reference"); }
    this.heading.textContent = ratings ? "Rate the image" : `Which is better: ${study.criteria[0]}?`;
    this.shown = names.map((name) => new ImageCanvas(name, "image"));
    this.images.clear();
    await Promise.all(places.map(async (token, i) => {
      const { top, white, image } = JSON.parse(document.getElementById(`image-${token}`).textContent);
      this.shown[i].setImage({ image: await decodeImage(image), outline: null });
      this.images.set(this.shown[i], { top, white });
    }));
    if (this.item !== item) return; // gone on meanwhile
    this.grid.replaceChildren(...this.shown.map((each, i) =>
      element("figure", { class: "panel" }, element("figcaption", {}, names[i]), each.canvas)));
    this.resetView();
    this.showControls();
    this.since = performance.now();
    this.node.dataset.item = item.id;
  }

  showControls() {
    const values = answers[this.item.id]?.values ?? {};
    this.criterion = study.criteria.find((name) => !(name in values)) ?? study.criteria[0];
    const option = (text, answer, pressed) => button(text, answer, { "aria-pressed": pressed });
    const rows = ratings
      ? study.criteria.map((name) => element("div", { class: name === this.criterion ? "row current" : "row" }, span("name", name),
        study.scale.map(([score, word]) => option(`${score} ${word}`, () => this.rate(name, score), values[name] === score))))
      : [div("row", Object.entries(CHOICES).map(([choice, text]) =>
        option(text, () => this.choose(choice), answers[this.item.id]?.choice === choice)))];
    this.controls.replaceChildren(...rows);
  }

  record(answer) {
    const seconds = Math.round((performance.now() - this.since) / 100) / 10;
    answers[this.item.id] = { ...answers[this.item.id], ...answer, seconds };
    keep();
    if (!isDone(this.item)) { this.showControls(); return; }
    const count = done();
    this.say(count % study.break_every === 0 && count < study.items.length
      ? `${count} of ${study.items.length}: time for a break. Nothing is lost when you close the page.` : "");
    this.go();
  }

  rate(name, score) {
    this.record({ values: { ...answers[this.item.id]?.values, [name]: score } });
  }

  choose(choice) { this.record({ choice }); }

  // Takes back the last answer.
  undo() {
    const started = this.index >= 0 && this.item.id in answers;
    const last = study.items.findLastIndex(isDone);
    const item = started ? this.item : study.items[last];
    if (!item) return;
    delete answers[item.id];
    keep();
    this.say("");
    this.go(study.items.indexOf(item));
  }

  resetView() {
    const [{ top, white }] = this.images.values();
    const width = white / top;
    change({ zoom: 1, x: 0.5, y: 0.5, level: width / 2, width, ownWindow: false });
  }

  update() {
    for (const each of this.shown) if (this.images.has(each)) each.draw(this.images.get(each));
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || this.index < 0 && event.key !== "Backspace") return;
    const actions = {
      Backspace: () => this.undo(), 0: () => this.resetView(),
      "+": () => zoomAround(1.25), "=": () => zoomAround(1.25), "-": () => zoomAround(0.8),
      "[": () => setWindow(view.level, view.width * 0.9), "]": () => setWindow(view.level, view.width / 0.9),
      b: () => setWindow(view.level - 0.02, view.width), d: () => setWindow(view.level + 0.02, view.width),
    };
    if (ratings) for (const [score] of study.scale) actions[score] = () => this.rate(this.criterion, score);
    else Object.assign(actions, { ArrowLeft: () => this.choose("left"), ArrowDown: () => this.choose("equal"), ArrowRight: () => this.choose("right") });
    if (!(event.key in actions) || !this.node.dataset.item) return;
    event.preventDefault();
    actions[event.key]();
  }
}

const theViewer = new Reader();
const theReader = theViewer;
theReader.go();
