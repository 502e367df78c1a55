// Elements and texts. Everything from data becomes a text node, never markup.

const SVG = "http://www.w3.org/2000/svg";

const present = (children) =>
  children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false);

function fill(element, properties, children) {
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "style") for (const [key, setting] of Object.entries(value)) element.style.setProperty(key, setting);
    else if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...present(children));
  return element;
}

export const el = (tag, properties = {}, ...children) => fill(document.createElement(tag), properties, children);
export const replace = (element, ...children) => element.replaceChildren(...present(children));
export const svg = (tag, properties = {}, ...children) =>
  fill(document.createElementNS(SVG, tag), properties, children);

// A name for elements that labels and aria attributes refer to.
let ids = 0;
export const newId = (prefix) => `${prefix}-${++ids}`;

export function field(label, control, hint) {
  const id = control.id || (control.id = newId("field"));
  if (hint) control.setAttribute("aria-describedby", `${id}-hint`);
  return el(
    "div",
    { class: "field" },
    el("label", { for: id }, label),
    control,
    hint && el("small", { id: `${id}-hint` }, hint),
  );
}

// A slider for a probability, with its value beside the label.
export function slider(label, properties, oninput, hint) {
  const output = el("output", {}, "0 %");
  const control = el("input", {
    type: "range",
    value: 0,
    min: 0,
    ...properties,
    oninput: () => {
      output.textContent = percent(Number(control.value), 0);
      oninput?.();
    },
  });
  const root = field(label, control, hint);
  root.querySelector("label").append(" ", output);
  return { root, control };
}

export function select(options, chosen, onchange) {
  const control = el("select", { onchange: () => onchange?.(control.value) });
  for (const option of options) {
    const [value, text] = Array.isArray(option) ? option : [option, option];
    control.append(el("option", { value, selected: value === chosen }, text));
  }
  return control;
}

export function table(caption, columns, rows, { unseen = true } = {}) {
  return el(
    "div",
    { class: "scroll", tabindex: 0, role: "group", "aria-label": caption },
    el(
      "table",
      {},
      el("caption", { class: unseen && "hidden" }, caption),
      el(
        "thead",
        {},
        el(
          "tr",
          {},
          columns.map(([name, kind]) => el("th", { scope: "col", class: kind }, name)),
        ),
      ),
      el(
        "tbody",
        {},
        rows.map((row) =>
          el(
            "tr",
            {},
            row.map((cell, i) => el("td", { class: columns[i][1] }, cell)),
          ),
        ),
      ),
    ),
  );
}

export const percent = (share, digits = 1) => `${(100 * share).toFixed(digits)}\u00a0%`; // with a space that does not break
export const count = (number, noun, plural = `${noun}s`) =>
  `${number.toLocaleString("en")} ${number === 1 ? noun : plural}`;
export const clip = (text, length) => (text.length > length ? `${text.slice(0, length - 1)}…` : text);

export function duration(seconds) {
  if (seconds === null || seconds === undefined) return "";
  if (seconds < 90) return `${Math.max(1, Math.round(seconds))} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  return `${(seconds / 3600).toFixed(1)} h`;
}

// Read out by screen readers, at most one message at a time.
export function announce(message) {
  document.getElementById("status").textContent = message;
}

export function showError(error) {
  if (error.name === "AbortError") return;
  const toast = el(
    "div",
    { class: "toast" },
    el("p", {}, error.message || String(error)),
    el("button", { type: "button", class: "quiet", onclick: () => toast.remove() }, "Close"),
  );
  document.getElementById("toasts").replaceChildren(toast);
}

export const guarded =
  (action) =>
  async (...values) => {
    try {
      return await action(...values);
    } catch (error) {
      showError(error);
      return undefined;
    }
  };

export function debounce(action, milliseconds) {
  let timer;
  return (...values) => {
    clearTimeout(timer);
    timer = setTimeout(() => action(...values), milliseconds);
  };
}

// Keys work when no control for text has the focus, and without Ctrl, Alt and Meta.
export function plainKey(event) {
  const typing = event.target.closest?.(
    "input:not([type=checkbox], [type=radio], [type=range]), textarea, select, dialog",
  );
  return typing || event.ctrlKey || event.altKey || event.metaKey ? "" : event.key;
}

export function save(content, name) {
  const link = el("a", { href: URL.createObjectURL(content), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}
