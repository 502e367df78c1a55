// Errors: read the test rows of a run, and mark those whose label is wrong.

import { get } from "/page/api.js";
import {
  announce,
  clip,
  count,
  debounce,
  el,
  field,
  percent,
  plainKey,
  replace,
  save,
  select,
  slider,
} from "/page/dom.js";

export const title = "Errors";
const SHOWN = 40;
const LONG = 900; // characters that are shown; all are searched and exported

export async function open(root, server, [wanted]) {
  root.append(el("h1", {}, "Read a run's errors"));
  const { runs } = await get("/api/runs");
  const names = runs.filter((run) => run.rows).map((run) => run.name);
  if (!names.length) {
    root.append(
      el(
        "div",
        { class: "empty" },
        el(
          "p",
          {},
          "There is no complete run with test rows yet. Train one: ",
          el("code", {}, "loralab train reviews.csv"),
          ", or ",
          el("a", { href: "#label" }, "label a file"),
          " first.",
        ),
      ),
    );
    return undefined;
  }
  const first = names.includes(wanted) ? wanted : names[0];
  const place = el("div");
  let close;
  const show = async (name) => {
    close?.();
    close = undefined;
    place.replaceChildren(el("p", { class: "note" }, "Reading the test rows …"));
    try {
      close = showRun(place, name, await get("/api/rows", { run: name }));
    } catch (error) {
      place.replaceChildren(el("p", { class: "warning small", role: "alert" }, error.message));
    }
  };
  root.append(
    el("p", { class: "lead" }, "Confident errors are often wrong labels. Mark them here, and export the corrections."),
    el("div", { class: "fields" }, field("Run", select(names, first, show))),
    place,
  );
  await show(first);
  return () => close?.();
}

function showRun(place, name, content) {
  const rows = content.rows.map(([row, label, predicted, confidence, text], position) => ({
    row,
    label,
    predicted,
    confidence,
    text,
    position,
  }));
  const marks = new Marks(`loralab-marks:${name}:${content.total}`);
  let filtered = [],
    limit = SHOWN,
    current = 0;

  const pairs = new Map();
  for (const row of rows)
    if (row.label !== row.predicted)
      pairs.set(`${row.label} → ${row.predicted}`, (pairs.get(`${row.label} → ${row.predicted}`) ?? 0) + 1);
  const ordered = [...pairs].sort((a, b) => b[1] - a[1]);
  const kinds = select(
    [
      ["errors", `all errors (${content.errors})`],
      ...ordered.map(([pair, number]) => [pair, `${pair} (${number})`]),
      ["correct", "correct rows, least confident first"],
      ["marked", "rows that you marked"],
    ],
    "errors",
    update,
  );
  const search = el("input", { type: "search", oninput: debounce(update, 150), placeholder: "words of the text" });
  const least = slider("Confidence at least", { max: 1, step: 0.05 }, () => update());
  const summary = el("p", { class: "note", role: "status" });
  const list = el("ol", { class: "rows", "aria-label": "Test rows" });
  const more = el(
    "button",
    {
      type: "button",
      onclick: () => {
        limit += SHOWN;
        draw();
      },
    },
    "Show more",
  );
  const exporting = el("button", {
    type: "button",
    class: "primary",
    onclick: () => save(marks.toCsv(rows), "fixes.csv"),
  });
  place.replaceChildren(
    el("div", { class: "fields" }, field("Rows", kinds), field("Search", search), least.root),
    el(
      "p",
      { class: "keys" },
      el("kbd", {}, "j"),
      " ",
      el("kbd", {}, "k"),
      " next, previous  ",
      el("kbd", {}, "w"),
      " the label is wrong  ",
      content.classes.length <= 9 && [
        el("kbd", {}, "1"),
        "–",
        el("kbd", {}, String(content.classes.length)),
        " the right label  ",
      ],
      el("kbd", {}, "u"),
      " undo",
    ),
    el("div", { class: "actions" }, summary, exporting),
    list,
    more,
    el(
      "p",
      { class: "note" },
      "Row numbers are those of the file with the test rows, from 0. The marks stay in this browser.",
    ),
  );

  function update() {
    const words = search.value.trim().toLowerCase();
    filtered = rows.filter((row) => {
      const wrong = row.label !== row.predicted;
      const kind =
        kinds.value === "errors"
          ? wrong
          : kinds.value === "correct"
            ? !wrong
            : kinds.value === "marked"
              ? marks.has(row)
              : `${row.label} → ${row.predicted}` === kinds.value;
      return (
        kind && row.confidence >= Number(least.control.value) && (!words || row.text.toLowerCase().includes(words))
      );
    });
    limit = SHOWN;
    current = 0;
    draw();
  }

  function draw() {
    const of =
      content.rows.length < content.total ? `, of which ${content.rows.length.toLocaleString("en")} are here` : "";
    summary.textContent = `${count(filtered.length, "row")} of ${count(content.total, "test row")}${of}. ${count(content.errors, "error")}.`;
    list.replaceChildren(...filtered.slice(0, limit).map(drawRow));
    if (!filtered.length) list.append(el("li", { class: "note" }, "No row is like this."));
    more.hidden = filtered.length <= limit;
    drawExport();
  }

  function drawExport() {
    exporting.textContent = `Export ${count(marks.size, "correction")} as fixes.csv`;
    exporting.disabled = marks.size === 0;
  }

  function drawRow(row, i) {
    const item = el("li", { class: "row", tabindex: i === current ? 0 : -1, onfocus: () => point(i, false) });
    item.row = row;
    fillRow(item);
    return item;
  }

  function fillRow(item) {
    const { row } = item;
    const right = marks.get(row);
    item.classList.toggle("marked", right !== undefined);
    const choice = right !== undefined && select(content.classes, right, (label) => mark(item, label));
    if (choice) choice.setAttribute("aria-label", "The right label");
    replace(
      item,
      el(
        "p",
        { class: "verdict" },
        "label ",
        el("span", { class: row.label === row.predicted ? "label" : "wrong" }, row.label),
        ", predicted ",
        el("span", { class: "label" }, row.predicted),
        el("small", {}, `  ${percent(row.confidence)} confident, row ${row.row}`),
      ),
      el("p", { class: "text", dir: "auto" }, clip(row.text, LONG)),
      el(
        "div",
        { class: "actions" },
        choice
          ? [
              el("span", {}, "The right label is "),
              choice,
              el("button", { type: "button", class: "quiet", onclick: () => mark(item, undefined) }, "Undo"),
            ]
          : el(
              "button",
              { type: "button", class: "quiet", onclick: () => mark(item, row.predicted) },
              "The label is wrong",
            ),
      ),
    );
  }

  function mark(item, label) {
    marks.set(item.row, label);
    fillRow(item);
    drawExport();
    announce(label === undefined ? "Mark removed" : `The right label is ${label}`);
    item.focus({ preventScroll: true });
  }

  function point(i, focus = true) {
    const items = list.querySelectorAll(".row");
    if (!items[i]) return;
    items[current]?.setAttribute("tabindex", "-1");
    current = i;
    items[i].setAttribute("tabindex", "0");
    if (focus) items[i].focus();
  }

  function onkey(event) {
    const key = plainKey(event);
    const item = list.querySelectorAll(".row")[current];
    if (key === "j" || (key === "ArrowDown" && event.target.closest(".rows")))
      point(list.contains(document.activeElement) ? current + 1 : current);
    else if (key === "k" || (key === "ArrowUp" && event.target.closest(".rows"))) point(current - 1);
    else if (!item) return;
    else if (key === "w")
      mark(
        item,
        item.row.predicted === item.row.label
          ? content.classes.find((name) => name !== item.row.label)
          : item.row.predicted,
      );
    else if (key === "u") {
      const last = marks.undo();
      const index = filtered.findIndex((row) => row.row === last);
      if (index >= 0 && index < limit) {
        fillRow(list.querySelectorAll(".row")[index]);
        point(index);
      }
      drawExport();
    } else if (/^[1-9]$/.test(key) && content.classes[key - 1]) mark(item, content.classes[key - 1]);
    else return;
    event.preventDefault();
  }
  addEventListener("keydown", onkey);
  update();
  return () => removeEventListener("keydown", onkey);
}

// Right labels by row, kept in the browser.
class Marks {
  constructor(key) {
    this.key = key;
    this.labels = new Map(JSON.parse(localStorage.getItem(key) ?? "[]"));
  }

  get size() {
    return this.labels.size;
  }

  has(row) {
    return this.labels.has(row.row);
  }

  get(row) {
    return this.labels.get(row.row);
  }

  set(row, label) {
    this.labels.delete(row.row);
    if (label !== undefined) this.labels.set(row.row, label);
    this.keep();
  }

  undo() {
    const last = [...this.labels.keys()].at(-1);
    this.labels.delete(last);
    this.keep();
    return last;
  }

  keep() {
    localStorage.setItem(this.key, JSON.stringify([...this.labels]));
  }

  toCsv(rows) {
    const lines = [["row", "text", "label", "right_label", "predicted", "confidence"]];
    for (const row of rows)
      if (this.has(row)) lines.push([row.row, row.text, row.label, this.get(row), row.predicted, row.confidence]);
    return new Blob([lines.map((cells) => cells.map(csvCell).join(",") + "\n").join("")], { type: "text/csv" });
  }
}

// A spreadsheet would run a cell that begins like a formula, so it gets a ' in front.
function csvCell(value) {
  let cell = String(value);
  if (/^[=+\-@\t\r]/.test(cell) && Number.isNaN(Number(cell))) cell = `'${cell}`;
  return /[",\n\r]/.test(cell) ? `"${cell.replaceAll('"', '""')}"` : cell;
}
