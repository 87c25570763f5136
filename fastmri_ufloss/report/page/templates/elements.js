"use strict";
// Elements. Text is always set as text, never as HTML: names of methods and volumes come from users.

const element = (tag, attributes = {}, ...children) => filled(document.createElement(tag), attributes, children);
const svgElement = (tag, attributes = {}, ...children) => filled(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);

function filled(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "on") for (const [type, listener] of Object.entries(value)) node.addEventListener(type, listener);
    else if (name === "style") for (const [key, text] of Object.entries(value)) node.style.setProperty(key, text);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
  return node;
}

const bodyOf = (section) => document.querySelector(`#${section} .body`);
const div = (name, ...children) => element("div", { class: name }, children);
const legend = (...children) => element("p", { class: "legend" }, children);
const nameText = (name) => element("span", { class: "name", title: name }, name);
const button = (text, click, attributes = {}) => element("button", { type: "button", ...attributes, on: { click } }, text);
const plural = (count, word) => `${count} ${word}${count === 1 ? "" : "s"}`;

// Pairs of terms and what they mean, below a summary.
const explained = (summary, pairs, attributes = {}) => element("details", attributes, element("summary", {}, summary),
  element("dl", { class: "pairs" }, pairs.map(([term, text]) => [element("dt", {}, term), element("dd", {}, text)])));

// A select with its label; options are [value, text], or values alone.
function selectField(label, options, value, onChange, attributes = {}) {
  const select = element("select", { ...attributes, on: { change: () => onChange(select.value) } },
    options.map((option) => (Array.isArray(option) ? option : [option, option])).map(([key, text]) => element("option", { value: key }, text)));
  select.value = value;
  return element("label", { class: "field" }, element("span", {}, label), select);
}

// A slider with its label and its value in words.
function sliderField(label, { value, text, ...attributes }, onInput) {
  const output = element("output");
  const input = element("input", { type: "range", ...attributes, on: { input: () => { show(Number(input.value)); onInput(Number(input.value)); } } });
  const show = (number) => {
    output.textContent = text(number);
    input.setAttribute("aria-valuetext", text(number));
  };
  const set = (number) => { input.value = number; show(number); };
  set(value);
  return { field: element("label", { class: "field slider" }, element("span", {}, label), input, output), set };
}

// A button that is on or off.
function toggleButton(text, pressed, onToggle, attributes = {}) {
  const isOn = () => toggle.getAttribute("aria-pressed") === "true";
  const set = (on) => toggle.setAttribute("aria-pressed", String(on));
  const toggle = button(text, () => { set(!isOn()); onToggle(isOn()); }, { class: "toggle", "aria-pressed": String(pressed), ...attributes });
  return { button: toggle, set };
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
