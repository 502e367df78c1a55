// A run that is being trained: progress, loss and accuracy so far. Label and Runs share it.

import { count, duration, el, percent, svg } from "/page/dom.js";

const WIDTH = 320,
  HEIGHT = 90;

export function trainingProgress(run) {
  const last = run.evaluations.at(-1);
  const left = run.step ? (run.seconds / run.step) * (run.steps - run.step) : null;
  return [
    el("progress", { max: run.steps || 1, value: run.step, "aria-label": `Training of ${run.name}` }),
    el(
      "p",
      { class: "note" },
      run.step ? `Step ${run.step.toLocaleString("en")} of ${run.steps.toLocaleString("en")}` : "Preparing",
      left !== null && run.step < run.steps && `, about ${duration(left)} left`,
      last?.accuracy !== undefined && last?.accuracy !== null && `. Validation accuracy ${percent(last.accuracy)}`,
    ),
    run.losses.length > 1 && lossChart(run),
  ];
}

function lossChart(run) {
  const losses = run.losses.map(([, loss]) => loss);
  const highest = Math.max(...losses),
    steps = run.steps || run.losses.at(-1)[0];
  const points = run.losses.map(
    ([step, loss]) => `${((WIDTH * step) / steps).toFixed(1)},${(HEIGHT - (HEIGHT * loss) / highest).toFixed(1)}`,
  );
  return el(
    "figure",
    { class: "chart" },
    svg(
      "svg",
      {
        viewBox: `0 -4 ${WIDTH} ${HEIGHT + 8}`,
        role: "img",
        "aria-label": `Training loss of ${count(losses.length, "step")}, now ${losses.at(-1).toFixed(3)}`,
      },
      svg("line", { x1: 0, x2: WIDTH, y1: HEIGHT, y2: HEIGHT, class: "axis" }),
      svg("polyline", { points: points.join(" "), class: "curve" }),
    ),
    el("figcaption", {}, `Training loss, now ${losses.at(-1).toFixed(3)}`),
  );
}
