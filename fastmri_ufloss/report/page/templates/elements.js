"use strict";
// Elements. Text is always set as text, never as HTML: names of methods and volumes come from users.

const SVG = "http://www.w3.org/2000/svg";
const element = (tag, attributes, ...children) => filled(document.createElement(tag), attributes, children);
const svgElement = (tag, attributes, ...children) => filled(document.createElementNS(SVG, tag), attributes, children);

function filled(node, attributes = {}, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (missing(value) || value === false) continue;
    if (name === "on") for (const [type, listener] of Object.entries(value)) node.addEventListener(type, listener);
    else if (name === "style") for (const [key, text] of Object.entries(value)) node.style.setProperty(key, text);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat(Infinity).filter((child) => !missing(child)));
  return node;
}

const missing = (value) => value === null || value === undefined;
const bodyOf = (section) => document.querySelector(`#${section} .body`);
const div = (name, ...children) => element("div", { class: name }, children);
const span = (name, ...children) => element("span", { class: name }, children);
const legend = (...children) => element("p", { class: "legend" }, children);
const nameText = (name) => element("span", { class: "name", title: name }, name);
const button = (text, click, attributes) => element("button", { type: "button", ...attributes, on: { click } }, text);
const field = (label, name, ...input) => element("label", { class: `field ${name}` }, element("span", {}, label), input);
const plural = (count, word) => `${count} ${word}${count === 1 ? "" : "s"}`;

// Pairs of terms and what they mean.
const pairList = (pairs) => element("dl", { class: "pairs" },
  pairs.map(([term, text]) => [element("dt", {}, term), element("dd", {}, text)]));
const fold = (summary, content, attributes) => element("details", attributes, element("summary", {}, summary), content);

// A select with its label; `set` gives it options, which are [value, text] or values alone, and a value.
function selectField(label, onChange, attributes) {
  const select = element("select", { ...attributes, on: { change: () => onChange(select.value) } });
  const set = (options, value) => {
    const pairs = options.map((option) => [option].flat());
    select.replaceChildren(...pairs.map(([key, text = key]) => element("option", { value: key }, text)));
    select.value = value;
  };
  return { node: field(label, "", select), set };
}

// A slider for a number of an object, which `show` shows, also in words.
function sliderField(label, object, key, { text, ...attributes }, changed) {
  const output = element("output");
  const change = () => { object[key] = Number(input.value); show(); changed(); };
  const input = element("input", { type: "range", ...attributes, on: { input: change } });
  const show = () => {
    input.value = object[key];
    output.textContent = text(object[key]);
    input.setAttribute("aria-valuetext", output.textContent);
  };
  show();
  return { node: field(label, "slider", input, output), show };
}

// A button for what is on or off in an object, which `show` shows.
function toggleButton(text, object, key, changed, attributes) {
  const node = button(text, () => { object[key] = !object[key]; show(); changed(); }, { class: "toggle", ...attributes });
  const show = () => node.setAttribute("aria-pressed", object[key]);
  show();
  return { node, show };
}

// The small text beside the pointer.
function showTip(event, lines) {
  const tip = document.getElementById("tip");
  tip.replaceChildren(...lines.map((line) => element("div", {}, line)));
  tip.hidden = false;
  const left = Math.min(event.clientX + 14, window.innerWidth - tip.offsetWidth - 8);
  const below = event.clientY + 16 + tip.offsetHeight < window.innerHeight;
  tip.style.left = `${Math.max(left, 8)}px`;
  tip.style.top = `${below ? event.clientY + 16 : event.clientY - tip.offsetHeight - 10}px`;
}

const hideTip = () => { document.getElementById("tip").hidden = true; };
