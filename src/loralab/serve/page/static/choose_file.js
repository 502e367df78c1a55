// Choose a file, see its columns, and say which have the texts. Files and Label share it.

import { get, remove, upload } from "/page/api.js";
import { announce, count, el, guarded, newId, replace } from "/page/dom.js";

// onchosen({file, id, text: [...], rows}) is called for every change, with null while no text column is chosen.
export class FileChooser {
  constructor(server, onchosen) {
    this.server = server;
    this.onchosen = onchosen;
    this.model = null;
    this.input = el("input", {
      type: "file",
      id: newId("file"),
      accept: server.state.extensions.join(","),
      onchange: () => this.take(this.input.files[0]),
    });
    this.hint = el(
      "small",
      {},
      `CSV, TSV, JSON Lines, Parquet or Excel, up to ${Math.round(server.state.max_upload / 1e6)} MB`,
    );
    this.zone = el(
      "div",
      { class: "drop" },
      el("label", { for: this.input.id }, "Choose a file, or drop it here"),
      this.input,
      this.hint,
    );
    this.preview = el("div", { class: "preview" });
    this.root = el("div", {}, this.zone, this.preview);
    for (const name of ["dragenter", "dragover"]) {
      this.zone.addEventListener(name, (event) => {
        event.preventDefault();
        this.zone.classList.add("over");
      });
    }
    this.zone.addEventListener("dragleave", () => this.zone.classList.remove("over"));
    this.zone.addEventListener("drop", (event) => {
      event.preventDefault();
      this.zone.classList.remove("over");
      if (event.dataTransfer.files.length) this.take(event.dataTransfer.files[0]);
    });
    this.take = guarded(this.take.bind(this));
    this.useModel = guarded(this.useModel.bind(this));
  }

  async take(file) {
    if (!file) return;
    this.onchosen(null);
    if (file.size > this.server.state.max_upload)
      throw new Error(`${file.name} is larger than ${Math.round(this.server.state.max_upload / 1e6)} MB.`);
    const dot = file.name.lastIndexOf(".");
    const extension = dot < 0 ? ".csv" : file.name.slice(dot).toLowerCase();
    this.preview.replaceChildren(el("p", { class: "note" }, `Reading ${file.name} …`));
    if (this.chosen) remove(`/api/files/${this.chosen.id}`).catch(() => {}); // the server deletes it after an hour anyway
    this.chosen = null;
    try {
      this.show(file.name, await upload("/api/files", { type: extension, model: this.model }, file));
    } catch (error) {
      this.preview.replaceChildren();
      throw error;
    }
  }

  // A model knows which columns its texts were in.
  async useModel(model) {
    this.model = model;
    if (this.chosen) this.show(this.chosen.file, await get(`/api/files/${this.chosen.id}`, { model }));
  }

  show(name, content) {
    this.chosen = { file: name, id: content.id, rows: content.rows, text: content.text };
    const boxes = content.columns.map((column) => {
      const box = el("input", {
        type: "checkbox",
        id: newId("column"),
        onchange: () => {
          this.chosen.text = content.columns.filter((_, i) => boxes[i].checked);
          this.onchosen(this.chosen.text.length ? this.chosen : null);
        },
      });
      box.checked = content.text.includes(column);
      return box;
    });
    replace(
      this.preview,
      el(
        "p",
        {},
        el("strong", {}, name),
        ` has ${count(content.rows, "row")}. Tick the column with the texts; the texts of several columns are joined.`,
      ),
      content.problem && el("p", { class: "warning small" }, content.problem),
      el(
        "div",
        { class: "scroll", tabindex: 0, role: "group", "aria-label": "First rows" },
        el(
          "table",
          {},
          el("caption", { class: "hidden" }, `First rows of ${name}`),
          el(
            "thead",
            {},
            el(
              "tr",
              {},
              content.columns.map((column, i) =>
                el("th", { scope: "col" }, el("label", { class: "column", for: boxes[i].id }, boxes[i], " ", column)),
              ),
            ),
          ),
          el(
            "tbody",
            {},
            content.sample.map((row) =>
              el(
                "tr",
                {},
                row.map((cell) => el("td", { class: "cell" }, cell)),
              ),
            ),
          ),
        ),
      ),
      content.notices.length > 0 &&
        el(
          "details",
          {},
          el("summary", {}, `How the file was read: ${count(content.notices.length, "remark")}`),
          el(
            "ul",
            { class: "findings" },
            content.notices.map((notice) => el("li", {}, notice)),
          ),
        ),
    );
    announce(`${name} was read: ${count(content.rows, "row")}`);
    this.onchosen(content.text.length ? this.chosen : null);
  }
}
