// Tables that sort by a click on a column, with the rows on pages where there are many.

// columns: {name, header, title, numeric, value(row), cell(row) -> text or nodes, descending: first click sorts so,
// rowHeader}. rows are sorted as they come until a column is clicked; what is null stays last.
class SortedTable {
  constructor(caption, { pageSize = Infinity } = {}) {
    Object.assign(this, { pageSize, page: 0, sortName: null, direction: 1, columns: [], rows: [] });
    this.head = element("tr");
    this.body = element("tbody");
    const table = element("table", {}, element("caption", { class: "hidden" }, caption), element("thead", {}, this.head), this.body);
    this.pager = element("div", { class: "pager", hidden: true });
    const scroll = element("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption }, table);
    this.node = element("div", {}, scroll, this.pager);
  }

  show(columns, rows) {
    this.columns = columns;
    this.rows = rows;
    this.page = 0;
    this.head.replaceChildren(...columns.map((column) => this.headCell(column)));
    this.draw();
  }

  headCell(column) {
    const button = element("button", { type: "button", title: column.title, on: { click: () => this.sort(column.name) } }, column.header);
    return element("th", { scope: "col", class: column.numeric ? "number" : null, "data-column": column.name }, button);
  }

  sort(name) {
    const column = this.columns.find((one) => one.name === name);
    this.direction = this.sortName === name ? -this.direction : column.descending ? -1 : 1;
    this.sortName = name;
    this.page = 0;
    this.draw();
  }

  sorted() {
    const column = this.columns.find((one) => one.name === this.sortName);
    if (!column) return this.rows;
    const keyed = this.rows.map((row, index) => ({ row, index, key: column.value(row) }));
    keyed.sort((a, b) => {
      if (a.key === null || b.key === null) return (a.key === null) - (b.key === null) || a.index - b.index;
      const order = column.numeric ? a.key - b.key : String(a.key).localeCompare(String(b.key), undefined, { numeric: true });
      return this.direction * order || a.index - b.index;
    });
    return keyed.map((entry) => entry.row);
  }

  draw() {
    for (const cell of this.head.children) {
      const sorted = cell.dataset.column === this.sortName;
      cell.setAttribute("aria-sort", !sorted ? "none" : this.direction > 0 ? "ascending" : "descending");
    }
    const first = this.page * this.pageSize || 0;
    const rows = this.sorted().slice(first, first + this.pageSize);
    this.body.replaceChildren(...rows.map((row) => this.row(row)));
    if (!rows.length) {
      this.body.append(element("tr", {}, element("td", { colspan: this.columns.length, class: "none" }, "no rows")));
    }
    this.drawPager(first, rows.length);
  }

  row(row) {
    return element("tr", {}, this.columns.map((column) =>
      element(column.rowHeader ? "th" : "td", {
        scope: column.rowHeader ? "row" : null,
        class: [column.numeric ? "number" : "", column.mark ? column.mark(row) : ""].join(" ").trim() || null,
      }, column.cell ? column.cell(row) : column.value(row) ?? "–")));
  }

  drawPager(first, count) {
    this.pager.hidden = this.rows.length <= this.pageSize;
    if (this.pager.hidden) return;
    const turn = (text, label, by, possible) => element("button", {
      type: "button", "aria-label": label, disabled: !possible, on: { click: () => { this.page += by; this.draw(); } },
    }, text);
    const last = first + count;
    this.pager.replaceChildren(
      turn("‹", "Previous rows", -1, first > 0),
      element("span", { "aria-live": "polite" }, `${first + 1}–${last} of ${this.rows.length}`),
      turn("›", "Next rows", 1, last < this.rows.length),
    );
  }
}
