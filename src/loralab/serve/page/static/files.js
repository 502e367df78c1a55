// Files: classify a whole file and download the result.

import { get, getBlob, post, remove } from "/page/api.js";
import { FileChooser } from "/page/choose_file.js";
import { announce, count, duration, el, field, guarded, percent, save, select, slider, table } from "/page/dom.js";

export const title = "Files";

export async function open(root, server) {
  root.append(el("h1", {}, "Classify a file"));
  const names = server.state.models.map((model) => model.model);
  if (!names.length) {
    root.append(el("p", { class: "empty" }, "No model is loaded. ", el("a", { href: "#try" }, "Load one"), " first."));
    return undefined;
  }
  let chosen = null,
    timer = null,
    job = null;
  const models = select(names, names[0], (name) => chooser.useModel(name));
  const level = slider(
    "Leave rows below this confidence undecided:",
    { max: 0.99, step: 0.01 },
    null,
    "They get no class and come first in the file, for you to read.",
  );
  const start = el("button", { type: "button", class: "primary", disabled: true, onclick: guarded(begin) }, "Classify");
  const chooser = new FileChooser(server, (value) => {
    chosen = value;
    start.disabled = !value;
  });
  chooser.model = names[0];
  const result = el("section", { class: "result", "aria-label": "Result" });
  root.append(
    el(
      "p",
      { class: "lead" },
      "Every row gets a class and its probability. You download the file with these columns added.",
    ),
    chooser.root,
    el("div", { class: "fields" }, field("Model", models), level.root),
    start,
    result,
  );

  async function begin() {
    if (job) await remove(`/api/jobs/${job.id}`).catch(() => {});
    start.disabled = true;
    job = await post("/api/jobs", {
      file: chosen.id,
      text: chosen.text,
      model: models.value,
      abstain_below: Number(level.control.value),
    });
    const name = `${chosen.file.replace(/\.[^.]+$/, "")}-classified.csv`;
    const bar = el("progress", { max: job.total, value: 0, "aria-label": "Rows classified" });
    const left = el("p", { class: "note" });
    const stop = el(
      "button",
      {
        type: "button",
        onclick: guarded(async () => {
          clearTimeout(timer);
          await remove(`/api/jobs/${job.id}`);
          result.replaceChildren(el("p", { class: "note" }, "Stopped."));
          start.disabled = false;
        }),
      },
      "Stop",
    );
    result.replaceChildren(bar, left, stop);
    const follow = guarded(async () => {
      job = await get(`/api/jobs/${job.id}`);
      bar.value = job.done;
      left.textContent =
        `${job.done.toLocaleString("en")} of ${count(job.total, "row")}` +
        (job.seconds_left !== null && job.done < job.total ? `, about ${duration(job.seconds_left)} left` : "");
      if (job.status === "running") {
        timer = setTimeout(follow, 400);
        return;
      }
      start.disabled = false;
      result.replaceChildren(
        ...(job.status === "failed"
          ? [el("p", { class: "warning small", role: "alert" }, `The file could not be classified: ${job.problem}`)]
          : finished(job, name)),
      );
      announce(job.status === "failed" ? "The file could not be classified" : `${count(job.done, "row")} classified`);
    });
    await follow();
  }
  return () => clearTimeout(timer);
}

function finished(job, name) {
  const rows = Object.entries(job.labels).map(([label, number]) => [
    label,
    number.toLocaleString("en"),
    percent(number / Math.max(1, job.total)),
  ]);
  if (job.abstained)
    rows.unshift(["undecided", job.abstained.toLocaleString("en"), percent(job.abstained / job.total)]);
  return [
    el("h2", {}, `${count(job.total, "row")} classified in ${duration(job.seconds)}`),
    el(
      "p",
      {},
      el(
        "button",
        {
          type: "button",
          class: "primary",
          onclick: guarded(async () => save(await getBlob(`/api/jobs/${job.id}/result`), name)),
        },
        `Download ${name}`,
      ),
      " ",
      el("small", {}, "The server deletes it after an hour."),
    ),
    table("Rows by class", [["Class"], ["Rows", "n"], ["Share", "n"]], rows),
    ...job.notices.map((notice) => el("p", { class: "note" }, notice)),
  ];
}
