// Try: probabilities of a text as it is typed, by every loaded model.

import { get, post } from "/page/api.js";
import { announce, clip, debounce, el, field, guarded, percent } from "/page/dom.js";

export const title = "Try";
const TYPING = 150;
const EXPLAINING = 600;
const MANY = 12;
let text = ""; // kept while other views are shown

export async function open(root, server) {
  root.append(el("h1", {}, "Try a text"));
  const models = server.state.models;
  if (!models.length) {
    const place = root.appendChild(el("p", { class: "note" }, "Looking for runs …"));
    place.replaceWith(await noModel());
    return undefined;
  }
  const input = el("textarea", {
    rows: 5,
    maxlength: server.state.max_text,
    spellcheck: "false",
    dir: "auto",
    placeholder: "Type or paste a text. The probabilities follow as you type.",
  });
  input.value = text;
  const explain = el("input", { type: "checkbox", id: "explain" });
  const cards = models.map((model) => new Card(model));
  root.append(
    field("Text", input),
    el(
      "p",
      { class: "options" },
      explain,
      el("label", { for: "explain" }, "Colour the words that decided"),
      el("small", {}, " takes about a second after you pause"),
    ),
    el(
      "div",
      { class: "cards" },
      cards.map((card) => card.root),
    ),
  );

  let controller = new AbortController();
  const classify = async () => {
    controller.abort();
    controller = new AbortController();
    const { signal } = controller;
    await Promise.all(cards.map((card) => card.classify(text, signal)));
    if (!signal.aborted && text.trim()) {
      announce(cards.map((card) => card.summary).join("; "));
      follow();
    }
  };
  const follow = debounce(
    guarded(async () => {
      const { signal } = controller;
      await Promise.all(cards.map((card) => card.showNeighbours(text, signal)));
      if (explain.checked) await Promise.all(cards.map((card) => card.explain(text, signal)));
    }),
    EXPLAINING,
  );
  const typed = debounce(guarded(classify), TYPING);
  input.addEventListener("input", () => {
    text = input.value;
    typed();
  });
  explain.addEventListener("change", () => {
    for (const card of cards) card.words.replaceChildren();
    if (text.trim()) follow();
  });
  if (text.trim()) typed();
  input.focus();
  return () => controller.abort();
}

class Card {
  constructor(model) {
    this.model = model;
    this.summary = "";
    this.verdict = el("p", { class: "verdict" }, "–");
    this.many = model.classes.length > MANY;
    this.bars = el("ul", { class: "bars", "aria-label": "Probabilities", tabindex: this.many && 0 });
    this.rows = new Map();
    for (const name of model.classes) {
      const bar = el("span", { class: "bar" }),
        value = el("span", { class: "value" });
      const item = el(
        "li",
        {},
        el("span", { class: "class" }, name),
        el("span", { class: "track", "aria-hidden": "true" }, bar),
        value,
      );
      this.rows.set(name, { item, bar, value });
      this.bars.append(item);
    }
    this.words = el("div", { class: "explained" });
    this.neighbours = el("div", { class: "neighbours" });
    const accuracy =
      model.accuracy &&
      `, ${percent(model.accuracy.value)} of ${model.accuracy.test_rows.toLocaleString("en")} test rows correct`;
    this.root = el(
      "article",
      { class: "card", "aria-label": `Model ${model.model}` },
      el("h2", {}, model.model),
      el("p", { class: "note" }, `${model.encoder}${accuracy ?? ""}`),
      this.verdict,
      this.bars,
      this.words,
      this.neighbours,
    );
  }

  async classify(text, signal) {
    if (!text.trim()) return this.clear();
    const answer = await post("/v1/classify", { model: this.model.model, input: text }, signal);
    const { label, scores } = answer.data[0];
    for (const [name, { item, bar, value }] of this.rows) {
      bar.style.setProperty("width", `${100 * scores[name]}%`);
      value.textContent = percent(scores[name]);
      item.classList.toggle("best", name === label);
    }
    if (this.many) this.sort(scores);
    this.verdict.replaceChildren(el("strong", {}, label), ` ${percent(scores[label])}`);
    this.summary = `${this.model.model}: ${label}, ${percent(scores[label], 0)}`;
    this.words.replaceChildren();
  }

  // Of many classes the probable ones come first.
  sort(scores) {
    const names = [...this.rows.keys()].sort((a, b) => scores[b] - scores[a]);
    this.bars.replaceChildren(...names.map((name) => this.rows.get(name).item));
  }

  clear() {
    this.verdict.textContent = "–";
    for (const { item, bar, value } of this.rows.values()) {
      bar.style.setProperty("width", "0");
      value.textContent = "";
      item.classList.remove("best");
    }
    this.words.replaceChildren();
    this.neighbours.replaceChildren();
  }

  async explain(text, signal) {
    this.words.replaceChildren(el("p", { class: "note" }, "Explaining …"));
    try {
      const answer = await post("/v1/classify", { model: this.model.model, input: text, explain: true }, signal);
      const { label, words } = answer.data[0];
      const strongest = Math.max(...words.map(([, value]) => Math.abs(value)), 1e-9);
      this.words.replaceChildren(
        el("h3", {}, "Words that decided"),
        el(
          "p",
          { class: "text", dir: "auto" },
          words.map(([word, value]) =>
            el(
              "span",
              {
                class: `token ${value > 0 ? "for" : "against"}`,
                style: { "--strength": Math.abs(value) / strongest },
                title: `${value > 0 ? "+" : "−"}${Math.abs(value).toFixed(2)}`,
              },
              word,
            ),
          ),
        ),
        el(
          "p",
          { class: "note" },
          el("span", { class: "token for", style: { "--strength": 0.8 } }, "for"),
          ` ${label}, `,
          el("span", { class: "token against", style: { "--strength": 0.8 } }, "against"),
          " it. The stronger the colour, the more a word moves the result.",
        ),
      );
    } catch (error) {
      if (error.name === "AbortError") throw error;
      this.words.replaceChildren(el("p", { class: "note" }, error.message));
    }
  }

  async showNeighbours(text, signal) {
    for (;;) {
      const answer = await post("/api/neighbours", { model: this.model.model, text, count: 4 }, signal).catch(
        (error) => {
          if (error.name === "AbortError") throw error;
          return { status: "unavailable", problem: error.message };
        },
      );
      if (answer.status === "computing") {
        this.neighbours.replaceChildren(
          el(
            "p",
            { class: "note" },
            "Nearest training rows: reading the training rows, ",
            answer.total ? `${answer.done.toLocaleString("en")} of ${answer.total.toLocaleString("en")} …` : "…",
          ),
        );
        await pause(700, signal);
        continue;
      }
      this.neighbours.replaceChildren(
        ...(answer.status === "ready"
          ? neighbourList(answer)
          : [
              el("h3", {}, "Nearest training rows"),
              el("p", { class: "note" }, `They cannot be shown: ${answer.problem}`),
            ]),
      );
      return;
    }
  }
}

function neighbourList(answer) {
  return [
    el("h3", {}, "Nearest training rows"),
    el(
      "ol",
      { class: "near" },
      answer.rows.map((row) =>
        el(
          "li",
          {},
          el("span", { class: "label" }, row.label),
          el("small", {}, ` similarity ${row.similarity.toFixed(2)}, row ${row.row}`),
          el("p", { title: row.text, dir: "auto" }, clip(row.text, 220)),
        ),
      ),
    ),
  ];
}

function pause(milliseconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, milliseconds);
    signal.addEventListener(
      "abort",
      () => {
        clearTimeout(timer);
        reject(new DOMException("", "AbortError"));
      },
      { once: true },
    );
  });
}

async function noModel() {
  const { runs } = await get("/api/runs");
  const complete = runs.filter((run) => run.kind === "run" && run.model);
  if (!complete.length) {
    return el(
      "div",
      { class: "empty" },
      el("p", {}, "There is no model yet. There are two ways to get one:"),
      el(
        "ul",
        {},
        el(
          "li",
          {},
          "You have texts without labels: ",
          el("a", { href: "#label" }, "label some of them here"),
          ", and train on them with one click.",
        ),
        el(
          "li",
          {},
          "You have a labelled file: run ",
          el("code", {}, "loralab train reviews.csv"),
          " in a terminal. The run then appears under ",
          el("a", { href: "#runs" }, "Runs"),
          ".",
        ),
      ),
    );
  }
  const load = guarded(async (run, button) => {
    button.disabled = true;
    button.textContent = "Loading …";
    try {
      await post("/api/runs/load", { run: run.name });
      dispatchEvent(new HashChangeEvent("hashchange"));
    } finally {
      button.disabled = false;
      button.textContent = "Load";
    }
  });
  return el(
    "div",
    { class: "empty" },
    el("p", {}, "No model is loaded. Load one of your runs:"),
    el(
      "ul",
      { class: "choices" },
      complete.slice(0, 12).map((run) => {
        const button = el(
          "button",
          { type: "button", class: "primary", "aria-label": `Load ${run.name}`, onclick: () => load(run, button) },
          "Load",
        );
        return el(
          "li",
          {},
          button,
          " ",
          el("strong", {}, run.name),
          run.accuracy !== undefined && ` ${percent(run.accuracy)} accurate`,
        );
      }),
    ),
  );
}
