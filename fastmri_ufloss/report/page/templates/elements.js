"use strict";
// Elements. Text is always set as text, never as HTML: names of methods and volumes come from users.

function element(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

function svgElement(tag, attributes = {}, ...children) {
  return filled(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function filled(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "on") for (const [type, listener] of Object.entries(value)) node.addEventListener(type, listener);
    else if (name === "style") for (const [key, text] of Object.entries(value)) node.style.setProperty(key, text);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return node;
}

let lastId = 0;
const newId = (prefix) => `${prefix}-${++lastId}`;

function bodyOf(section) {
  return document.querySelector(`#${section} .body`);
}

// A select with its label; options are [value, text].
function selectField(label, options, value, onChange, attributes = {}) {
  const select = element("select", { ...attributes, on: { change: () => onChange(select.value) } },
    options.map(([key, text]) => element("option", { value: key }, text)));
  select.value = value;
  return element("label", { class: "field" }, element("span", {}, label), select);
}

// A slider with its label and its value in words.
function sliderField(label, { min, max, step, value, text, id }, onInput) {
  const output = element("output", {}, text(value));
  const input = element("input", {
    type: "range", min, max, step, value, id,
    on: { input: () => { show(Number(input.value)); onInput(Number(input.value)); } },
  });
  const show = (number) => {
    output.textContent = text(number);
    input.setAttribute("aria-valuetext", text(number));
  };
  const field = element("label", { class: "field slider" }, element("span", {}, label), input, output);
  show(value);
  return { field, set: (number) => { input.value = number; show(number); } };
}

// A button that is on or off.
function toggleButton(text, pressed, onToggle, attributes = {}) {
  const button = element("button", {
    type: "button", class: "toggle", "aria-pressed": String(pressed), ...attributes,
    on: { click: () => { set(button.getAttribute("aria-pressed") !== "true"); onToggle(button.getAttribute("aria-pressed") === "true"); } },
  }, text);
  const set = (on) => button.setAttribute("aria-pressed", String(on));
  return { button, set };
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

function hideTip() {
  document.getElementById("tip").hidden = true;
}

function colorDot(method) {
  return element("span", { class: "dot", style: { background: colorOf(method) }, "aria-hidden": "true" });
}
