// Runs: all runs and experiments of the server's folder, live, and the comparison of two.

import { get, post } from "/page/api.js";
import { announce, count, el, guarded, percent, replace, table } from "/page/dom.js";
import { trainingProgress } from "/page/training.js";

export const title = "Runs";
const POLL = 2000,
  IDLE_POLL = 10_000;
const COLUMNS = [
  ["Compare", "one"],
  ["Name", "name", "name"],
  ["State", "", "status"],
  ["Test accuracy", "n", "accuracy"],
  ["Test rows", "n", "test_rows"],
  ["Data", "name", "data"],
  ["Changed", "one", "modified"],
  ["Actions", "one"],
];

export async function open(root, server) {
  const place = el("div", { "aria-busy": "true" });
  const live = el("div", { class: "live" });
  const compared = el("section", { class: "comparison", "aria-label": "Comparison" });
  const chosen = new Set();
  let order = { key: "modified", down: true },
    runs = [],
    timer;
  const compare = el(
    "button",
    { type: "button", class: "primary", disabled: true, onclick: guarded(showComparison) },
    "Compare two runs",
  );
  root.append(el("h1", {}, "Runs and experiments"));

  const load = guarded(async () => {
    ({ runs } = await get("/api/runs"));
    draw();
  });
  const poll = async () => {
    if (!document.hidden) await load();
    timer = setTimeout(poll, runs.some((run) => run.status === "running") ? POLL : IDLE_POLL);
  };

  function draw() {
    place.removeAttribute("aria-busy");
    if (!runs.length) {
      replace(
        place,
        el(
          "div",
          { class: "empty" },
          el(
            "p",
            {},
            server.state.folder
              ? ["There is no run in ", el("code", {}, server.state.folder), " yet."]
              : "The server has no folder of runs.",
            " Train one in a terminal: ",
            el("code", {}, "loralab train quickstart"),
            ", or ",
            el("a", { href: "#label" }, "label a file"),
            " and train on it here.",
          ),
        ),
      );
      return;
    }
    const focus = document.activeElement?.dataset?.key;
    replace(
      live,
      runs
        .filter((run) => run.status === "running" && run.kind === "run")
        .map((run) =>
          el(
            "article",
            { class: "card", "aria-label": `Training ${run.name}` },
            el("h2", {}, run.name),
            trainingProgress(run),
          ),
        ),
    );
    const sorted = [...runs].sort((a, b) => compareValues(a[order.key], b[order.key]) * (order.down ? -1 : 1));
    replace(
      place,
      el(
        "div",
        { class: "scroll", tabindex: 0, role: "group", "aria-label": "Runs and experiments" },
        el(
          "table",
          { class: "runs" },
          el("caption", { class: "hidden" }, "Runs and experiments"),
          el("thead", {}, el("tr", {}, COLUMNS.map(header))),
          el("tbody", {}, sorted.map(line)),
        ),
      ),
    );
    if (focus) place.querySelector(`[data-key="${CSS.escape(focus)}"]`)?.focus();
  }

  function header([name, kind, key]) {
    if (!key) return el("th", { scope: "col", class: kind }, name);
    const sorting = order.key === key ? (order.down ? "descending" : "ascending") : null;
    return el(
      "th",
      { scope: "col", class: kind, "aria-sort": sorting },
      el(
        "button",
        {
          type: "button",
          class: "sort",
          "data-key": `sort-${key}`,
          onclick: () => {
            order = { key, down: order.key === key ? !order.down : !["name", "status", "data"].includes(key) };
            draw();
            announce(`Sorted by ${name}, ${order.down ? "descending" : "ascending"}`);
          },
        },
        name,
        el("span", { "aria-hidden": "true" }, sorting === "descending" ? " ↓" : sorting === "ascending" ? " ↑" : ""),
      ),
    );
  }

  function line(run) {
    const box =
      run.rows &&
      el("input", {
        type: "checkbox",
        "aria-label": `Compare ${run.name}`,
        "data-key": `box-${run.name}`,
        onchange: () => {
          if (box.checked) chosen.add(run.name);
          else chosen.delete(run.name);
          drawCompare();
        },
      });
    if (box) box.checked = chosen.has(run.name);
    const accuracy = run.accuracy !== undefined &&
      run.accuracy !== null && [
        percent(run.accuracy),
        run.low !== undefined
          ? el("small", {}, ` ${(100 * run.low).toFixed(1)}–${(100 * run.high).toFixed(1)}`)
          : el("small", {}, " best trial"),
      ];
    const state =
      run.status === "running"
        ? `running, step ${run.step} of ${run.steps || "?"}`
        : run.trials
          ? `${run.status}: ${run.trials[0]} of ${run.trials[1]} trials`
          : run.status;
    return el(
      "tr",
      {},
      el("td", { class: "one" }, box),
      el("th", { scope: "row", class: "name" }, run.name, run.kind !== "run" && el("small", {}, ` ${run.kind}`)),
      el("td", { class: `state ${run.status}`, title: run.problem }, state),
      el("td", { class: "n" }, accuracy),
      el("td", { class: "n" }, run.test_rows?.toLocaleString("en")),
      el("td", { class: "name data" }, [run.encoder, run.data].filter(Boolean).join(" on ")),
      el("td", { class: "one" }, new Date(1000 * run.modified).toLocaleString("sv").slice(0, 16)),
      el("td", { class: "one links" }, actions(run)),
    );
  }

  function actions(run) {
    return [
      run.report &&
        el(
          "a",
          {
            href: `/page/reports/${run.report}`,
            target: "_blank",
            rel: "noopener noreferrer",
            "data-key": `report-${run.name}`,
            "aria-label": `Report of ${run.name}, in a new tab`,
          },
          "Report",
        ),
      run.rows &&
        el(
          "a",
          {
            href: `#errors/${encodeURIComponent(run.name)}`,
            "data-key": `errors-${run.name}`,
            "aria-label": `Errors of ${run.name}`,
          },
          "Errors",
        ),
      run.loaded ? el("small", {}, "loaded") : run.model && server.state.may_change && loadButton(run),
    ];
  }

  function loadButton(run) {
    const button = el(
      "button",
      {
        type: "button",
        class: "quiet",
        "data-key": `load-${run.name}`,
        "aria-label": `Load ${run.name}`,
        onclick: guarded(async () => {
          button.disabled = true;
          button.textContent = "Loading …";
          try {
            await post("/api/runs/load", { run: run.name });
            announce(`${run.name} is loaded`);
          } finally {
            await load();
          }
        }),
      },
      "Load",
    );
    return button;
  }

  function drawCompare() {
    compare.disabled = chosen.size !== 2;
    compare.textContent = chosen.size === 2 ? `Compare ${[...chosen].join(" and ")}` : "Compare two runs: tick them";
  }

  async function showComparison() {
    const [first, second] = chosen;
    replace(compared, el("p", { class: "note" }, "Comparing …"));
    replace(compared, comparison(first, second, await get("/api/comparison", { first, second })));
    compared.scrollIntoView({ block: "start" });
    announce("The comparison is below the table");
  }

  root.append(live, place, el("p", { class: "actions" }, compare), compared);
  drawCompare();
  await poll();
  return () => clearTimeout(timer);
}

function compareValues(a, b) {
  if (a === undefined || a === null) return b === undefined || b === null ? 0 : -1;
  if (b === undefined || b === null) return 1;
  return typeof a === "string" ? a.localeCompare(b) : a - b;
}

function comparison(first, second, result) {
  const heading = el("h2", {}, `${first} and ${second}`);
  if (!result.same_rows) {
    return [
      heading,
      el(
        "p",
        { class: "warning small" },
        `These runs were tested on different rows: ${count(result.rows[0], "row")} and ${count(result.rows[1], "row")}, ${result.common.toLocaleString("en")} of them the same texts. Their accuracies cannot be compared row by row. Train both on the same file with the same data.split_seed.`,
      ),
    ];
  }
  const { value, low, high } = result.difference;
  const points = (share) => `${share < 0 ? "−" : "+"}${Math.abs(100 * share).toFixed(2)}`;
  const p = result.p < 0.001 ? "p < 0.001" : `p = ${result.p.toFixed(3)}`;
  const verdict =
    result.p < 0.05
      ? `${value > 0 ? first : second} is better: the difference is significant.`
      : "The difference is not significant: it may be chance.";
  return [
    heading,
    el(
      "p",
      {},
      el("strong", {}, verdict),
      ` ${percent(result.accuracy[0], 2)} and ${percent(result.accuracy[1], 2)} of the same ${count(result.rows, "test row")} are correct: ${points(value)} points (95 % CI ${points(low)} to ${points(high)}), ${p} (McNemar's test).`,
    ),
    el(
      "dl",
      { class: "facts" },
      el("div", {}, el("dt", {}, `Only ${first} is right`), el("dd", {}, count(result.only_a, "row"))),
      el("div", {}, el("dt", {}, `Only ${second} is right`), el("dd", {}, count(result.only_b, "row"))),
      el("div", {}, el("dt", {}, "They predict different classes"), el("dd", {}, count(result.differing, "row"))),
    ),
    result.differences.length > 0 &&
      el(
        "h3",
        {},
        result.differences.length < result.differing
          ? `Where they differ: the first ${result.differences.length} rows`
          : "Where they differ",
      ),
    result.differences.length > 0 &&
      table(
        "Rows where the runs differ",
        [["Row", "n"], ["Label"], [first], [second], ["Text", "words"]],
        result.differences.map(([row, label, a, confidenceA, b, confidenceB, text]) => [
          row,
          label,
          predicted(a, confidenceA, label),
          predicted(b, confidenceB, label),
          text,
        ]),
      ),
  ];
}

const predicted = (name, confidence, label) => [
  el("span", { class: name === label ? "right" : "wrong" }, name),
  " ",
  el("small", { class: "one" }, percent(confidence, 0)),
];
