// The list of cases, in the order of their choice or by the score of a method.

const caseOrder = { metric: "", method: report.methods[report.methods.length - 1], worstFirst: true };

function caseValue(one) {
  const scores = one.scores[methodIndex.get(caseOrder.method)];
  return caseOrder.metric ? scores[metricIndex.get(caseOrder.metric)] : null;
}

function orderedCases() {
  const listed = report.cases.map((one, index) => ({ ...one, index })).filter(inContrast);
  if (!caseOrder.metric) return listed;
  const metric = report.metrics[metricIndex.get(caseOrder.metric)];
  const sign = (metric.larger_is_better === false ? -1 : 1) * (caseOrder.worstFirst ? 1 : -1);
  const key = (one) => (caseValue(one) === null ? Infinity : sign * caseValue(one));
  return listed.sort((a, b) => (key(a) === key(b) ? a.index - b.index : key(a) - key(b)));
}

class CaseList {
  constructor(onOpen) {
    this.onOpen = onOpen;
    this.current = 0;
    this.list = element("ol", { class: "cases", "aria-label": "Cases" });
    this.orders = element("div", { class: "orders" });
    this.node = element("div", { class: "case-list" }, this.orders, this.list);
    onChoice(() => this.draw());
  }

  draw() {
    const metrics = shownMetrics();
    if (!metrics.some((metric) => metric.name === caseOrder.metric)) caseOrder.metric = "";
    const change = (key) => (value) => { caseOrder[key] = value; this.draw(); this.orders.querySelector(`#case-${key}`)?.focus(); };
    const options = [["", "order of choice"], ...metrics.map((metric) => [metric.name, shortName(metric) + arrow(metric)])];
    this.orders.replaceChildren(selectField("Order by", options, caseOrder.metric, change("metric"), { id: "case-metric" }));
    if (caseOrder.metric) {
      this.orders.append(
        selectField("of", report.methods.map((method) => [method, method]), caseOrder.method, change("method"), { id: "case-method" }),
        toggleButton("worst first", caseOrder.worstFirst, change("worstFirst"), { id: "case-worstFirst" }).button,
      );
    }
    this.listed = orderedCases();
    this.list.replaceChildren(...this.listed.map((one) => element("li", {}, this.entry(one))));
    if (!this.listed.length) this.list.append(element("li", { class: "none" }, "no cases of this contrast"));
  }

  entry(one) {
    const value = caseOrder.metric ? format(caseValue(one), report.metrics[metricIndex.get(caseOrder.metric)]) : null;
    const why = value === null ? one.why : `${caseOrder.metric} of ${caseOrder.method}: ${value}`;
    return element("button", {
      type: "button", class: "case", "data-case": one.index, "aria-current": one.index === this.current ? "true" : null,
      on: { click: () => this.onOpen(one.index) },
    },
    element("img", { src: one.thumbnail, alt: "" }),
    element("span", { class: "text" },
      element("span", { class: "name" }, one.volume),
      element("span", { class: "place" }, `slice ${one.slice}${report.contrasts.length > 1 ? ` · ${one.contrast}` : ""}`),
      element("span", { class: "why" }, why)));
  }

  // Marks the case that is shown.
  mark(index) {
    this.current = index;
    for (const button of this.list.querySelectorAll("button")) {
      if (Number(button.dataset.case) === index) button.setAttribute("aria-current", "true");
      else button.removeAttribute("aria-current");
    }
  }

  // The case that is so many places further in the list, round and round.
  neighbour(by) {
    if (!this.listed.length) return this.current;
    const place = this.listed.findIndex((one) => one.index === this.current);
    return this.listed[(place + by + this.listed.length) % this.listed.length].index;
  }
}
