"use strict";
// Elements. Text is always set as text, never as HTML: names of methods and volumes come from users.

const SVG = "http://www.w3.org/2000/svg";
const element = (tag, attributes, ...children) => filled(document.createElement(tag), attributes, children);
const svgElement = (tag, attributes, ...children) => filled(document.createElementNS(SVG, tag), attributes, children);

function filled(node, { style = {}, on = {}, ...attributes } = {}, children) {
  for (const [name, value] of Object.entries(style)) node.style.setProperty(name, value);
  for (const [type, listener] of Object.entries(on)) node.addEventListener(type, listener);
  for (const [name, value] of Object.entries(attributes)) {
    if (!missing(value) && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat(Infinity).filter((child) => !missing(child)));
  return node;
}

const missing = (value) => value === null || value === undefined;
const plural = (count, word) => `${count} ${word}${count === 1 ? "" : "s"}`;
const div = (name, ...children) => element("div", { class: name }, children);
const span = (name, ...children) => element("span", { class: name }, children);
const legend = (...children) => element("p", { class: "legend" }, children);
const nameText = (name) => element("span", { class: "name", title: name }, name);
const button = (text, click, attributes) => element("button", { type: "button", ...attributes, on: { click } }, text);
const field = (label, ...input) => element("label", { class: "field" }, element("span", {}, label), input);
const fold = (summary, content, attributes) => element("details", attributes, element("summary", {}, summary), content);
const pairList = (pairs, attributes) => element("dl", { class: "pairs", ...attributes },
  pairs.map(([term, text]) => [element("dt", {}, term), element("dd", {}, text)]));

// Controls of an entry of an object, which `show` shows; `changed` is called after the user has changed the entry.

// `show` takes the options, which are [value, text] or values alone.
function selectField(label, object, key, changed, attributes) {
  const change = () => { object[key] = select.value; changed(); };
  const select = element("select", { ...attributes, on: { change } });
  const show = (options) => {
    const pairs = options.map((option) => [option].flat());
    select.replaceChildren(...pairs.map(([value, text = value]) => element("option", { value }, text)));
    select.value = object[key];
  };
  return { node: field(label, select), show };
}

function sliderField(label, object, key, { text, ...attributes }, changed) {
  const change = () => { object[key] = Number(input.value); show(); changed(); };
  const input = element("input", { type: "range", ...attributes, on: { input: change } });
  const output = element("output");
  const show = () => {
    input.value = object[key];
    output.textContent = text(object[key]);
    input.setAttribute("aria-valuetext", output.textContent);
  };
  show();
  return { node: field(label, input, output), show };
}

function toggleButton(text, object, key, changed, attributes) {
  const node = button(text, () => { object[key] = !object[key]; show(); changed(); }, { class: "toggle", ...attributes });
  const show = () => node.setAttribute("aria-pressed", object[key]);
  show();
  return { node, show };
}

// The small text beside the pointer.
const tip = document.getElementById("tip");
const hideTip = () => { tip.hidden = true; };

function showTip({ clientX, clientY }, lines) {
  tip.replaceChildren(...lines.map((line) => element("div", {}, line)));
  tip.hidden = false;
  tip.style.left = `${Math.min(clientX + 14, window.innerWidth - tip.offsetWidth - 8)}px`;
  tip.style.top = `${Math.min(clientY + 16, window.innerHeight - tip.offsetHeight - 8)}px`;
}
