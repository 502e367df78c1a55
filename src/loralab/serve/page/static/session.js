// A labelling session: rows of the user's file, the most useful ones first, by keys, and training on the labels.

import { get, post } from "/page/api.js";
import { announce, count, el, field, guarded, percent, plainKey, replace } from "/page/dom.js";
import { trainingProgress } from "/page/training.js";

const POLL = 1000;

export async function openSession(root, name) {
  const path = `/api/labelling/${encodeURIComponent(name)}`;
  let state = await get(path);
  let timer,
    busy = false,
    selected = null;
  const progress = el("progress", { "aria-label": "Rows labelled" });
  const numbers = el("p", { class: "note" });
  const text = el("p", { class: "sample", tabindex: 0, dir: "auto" });
  const choices = el("div", { class: "classes", role: "group", "aria-label": "Classes" });
  const hint = el("p", { class: "note" });
  const many = state.classes.length > 9;
  const find = el("input", { type: "search", oninput: filter, onkeydown: chooseFirst, autocomplete: "off" });
  const undo = el(
    "button",
    { type: "button", class: "quiet", onclick: guarded(() => act("undo")) },
    "Undo ",
    el("kbd", {}, "u"),
  );
  const skip = el(
    "button",
    { type: "button", class: "quiet", onclick: guarded(() => act("rows", { row: state.row })) },
    "Skip ",
    el("kbd", {}, "s"),
  );
  const side = el("dl", { class: "facts" });
  const training = el("div", { class: "training" });
  const train = el(
    "button",
    { type: "button", class: "primary", onclick: guarded(() => act("train")) },
    "Train on these labels",
  );
  const stop = el("button", { type: "button", class: "quiet", onclick: guarded(() => act("stop")) }, "Stop training");
  replace(
    root,
    el("h1", {}, state.file || state.name),
    progress,
    numbers,
    el(
      "section",
      { class: "labelling", "aria-label": "Row to label" },
      text,
      many && field("Find a class", find),
      choices,
      hint,
      el("div", { class: "actions" }, undo, skip),
    ),
    el(
      "p",
      { class: "keys" },
      state.classes.slice(0, 9).length > 0 && [
        el("kbd", {}, "1"),
        "–",
        el("kbd", {}, String(Math.min(9, state.classes.length))),
        " choose a class  ",
      ],
      many && [el("kbd", {}, "/"), " find a class  "],
      el("kbd", {}, "Enter"),
      " accept the suggestion  ",
      el("kbd", {}, "u"),
      " undo  ",
      el("kbd", {}, "s"),
      " skip",
    ),
    el(
      "section",
      { "aria-label": "Labels so far" },
      el("h2", {}, "So far"),
      side,
      el(
        "p",
        { class: "note" },
        "Saved in ",
        el("code", {}, state.path),
        ", a file that ",
        el("code", {}, "loralab train"),
        " reads. ",
        el("a", { href: "#label" }, "All files"),
      ),
    ),
    el("section", { "aria-label": "Training" }, el("h2", {}, "Train"), training, train, stop),
  );

  async function act(action, content = {}) {
    if (busy) return; // one answer at a time: a key pressed twice must not label the next row
    busy = true;
    try {
      const within = choices.contains(document.activeElement);
      update(await post(`${path}/${action}`, content));
      if (within) text.focus(); // its button is gone
    } finally {
      busy = false;
    }
  }
  const label = guarded((value) => (state.row === null ? null : act("rows", { row: state.row, label: value })));

  function update(next) {
    const other = next.row !== state.row;
    state = next;
    draw();
    if (other && state.text !== null)
      announce(state.suggestion ? `${state.text} Suggestion: ${state.suggestion.label}` : state.text);
  }

  function draw() {
    progress.max = state.total;
    progress.value = state.labelled;
    numbers.textContent =
      `${state.labelled.toLocaleString("en")} of ${count(state.total, "row")} labelled` +
      (state.skipped ? `, ${state.skipped.toLocaleString("en")} skipped` : "") +
      (state.problem
        ? `. ${state.problem}`
        : state.computed < state.total
          ? `. Reading all rows for suggestions: ${percent(state.computed / state.total, 0)}`
          : "");
    const over = state.row === null;
    text.textContent = over ? "All rows are done." : state.text;
    selected = state.suggestion?.label ?? null;
    replace(
      choices,
      !over &&
        state.classes.map((one, i) => {
          const share = state.suggestion?.probabilities[one];
          return el(
            "button",
            { type: "button", class: one === selected ? "choice suggested" : "choice", onclick: () => label(one) },
            i < 9 && el("kbd", {}, String(i + 1)),
            el("span", {}, one),
            share !== undefined && el("small", {}, percent(share, 0)),
            share !== undefined &&
              el("span", { class: "share", "aria-hidden": "true", style: { width: `${100 * share}%` } }),
          );
        }),
    );
    filter();
    hint.textContent = over
      ? ""
      : state.suggestion
        ? `Suggested by ${state.suggestion.source}. Enter accepts ${state.suggestion.label}.`
        : "Suggestions start when two classes have a label.";
    undo.disabled = !state.undo;
    skip.disabled = over;
    const { same, of } = state.agreement;
    replace(
      side,
      state.classes.map((one) =>
        el("div", {}, el("dt", {}, one), el("dd", {}, state.counts[one].toLocaleString("en"))),
      ),
      of > 0 &&
        el(
          "div",
          {},
          el("dt", {}, "Suggestions accepted"),
          el("dd", {}, percent(same / of, 0), el("small", {}, ` of the last ${of}`)),
        ),
    );
    drawTraining();
    poll();
  }

  function drawTraining() {
    const run = state.training;
    const few = state.classes.filter((one) => state.counts[one] < 5);
    train.hidden = run?.status === "running";
    stop.hidden = !train.hidden;
    train.disabled = few.length > 0;
    train.replaceChildren(run ? "Train again" : "Train on these labels");
    replace(
      training,
      few.length > 0 &&
        el(
          "p",
          { class: "note" },
          `Each class needs five labels before a model can be trained and tested: ${few.join(", ")}.`,
        ),
      run?.status === "running" && [el("p", {}, "Training ", el("strong", {}, run.name)), ...trainingProgress(run)],
      run?.status === "stopped" &&
        el(
          "p",
          {},
          el("strong", {}, run.name),
          run.step ? ` was stopped after step ${run.step.toLocaleString("en")}.` : " was stopped before its first step.",
        ),
      run?.status === "failed" && el("pre", { class: "warning small" }, run.problem),
      run?.status === "finished" &&
        run.test_rows > 0 &&
        el(
          "p",
          {},
          `${Math.round(run.accuracy * run.test_rows)} of ${count(run.test_rows, "test row")} are correct: ${percent(run.accuracy)}, on new rows probably between ${percent(run.low)} and ${percent(run.high)}.`,
          state.strategy !== "random" &&
            " The test rows are some of those you labelled, which are harder than most: the model is probably better than this.",
        ),
      run?.status === "finished" &&
        el(
          "p",
          {},
          el("strong", {}, run.name),
          " is trained",
          run.loaded
            ? [
                " and loaded. ",
                el("a", { href: "#try" }, "Try it"),
                ", or see its scores under ",
                el("a", { href: "#runs" }, "Runs"),
                ".",
              ]
            : run.problem
              ? `, but cannot be loaded: ${run.problem}`
              : " and being loaded …",
        ),
    );
  }

  function filter() {
    const words = find.value.trim().toLowerCase();
    for (const button of choices.children)
      button.hidden = !button.querySelector("span").textContent.toLowerCase().includes(words);
  }

  function chooseFirst(event) {
    if (event.key === "Escape") find.blur();
    if (event.key !== "Enter") return;
    choices.querySelector("button:not([hidden])")?.click();
    find.value = "";
    find.blur();
  }

  // Suggestions and training go on while the user reads.
  function poll() {
    clearTimeout(timer);
    const run = state.training;
    const waiting = run && (run.status === "running" || (run.status === "finished" && !run.loaded && !run.problem));
    const suggesting =
      !state.problem &&
      (state.computed < state.total || (state.row !== null && !state.suggestion && state.labelled > 1));
    if (waiting || suggesting) {
      timer = setTimeout(async () => {
        try {
          const next = await get(path);
          if (!busy) update(next);
        } catch {
          poll();
        }
      }, POLL);
    }
  }

  function onkey(event) {
    const key = plainKey(event);
    if (event.repeat || !key) return;
    if (/^[1-9]$/.test(key) && state.classes[key - 1] !== undefined) label(state.classes[key - 1]);
    else if (key === "Enter" && selected !== null && !event.target.closest("button, a, summary")) label(selected);
    else if (key === "/" && many) find.focus();
    else if (key === "u" && state.undo) guarded(act)("undo");
    else if (key === "s" && state.row !== null) guarded(act)("rows", { row: state.row });
    else return;
    event.preventDefault();
  }
  addEventListener("keydown", onkey);
  draw();
  return () => {
    clearTimeout(timer);
    removeEventListener("keydown", onkey);
  };
}
