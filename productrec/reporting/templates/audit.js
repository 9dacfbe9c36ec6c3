"use strict";
// Marks: kept by the browser under the findings' digest, shown at every finding of the same image, counted, downloaded.
(() => {
  const { find, all } = window.page;
  const { state, at, classes, subjects, nameSubject, findClass, findProblems, write } = window.auditCsv;
  const items = new Map(all("main .finding").map((item) => [item, nameSubject(state.rows[Number(item.dataset.row)])]));
  const itemsOf = new Map();
  for (const [item, subject] of items) itemsOf.set(subject, [...(itemsOf.get(subject) ?? []), item]);

  find("classes").append(...[...classes.values()].map(({ shown }) => new Option(shown)));

  // A mark is {action, to, swap, weight}, null where it was taken away; what the audit marked beforehand comes first.
  const marks = new Map();
  for (const [subject, rows] of subjects) {
    const row = state.rows[rows.find((number) => state.rows[number][at.action] !== "") ?? rows[0]];
    if (row[at.action] !== "") {
      marks.set(subject, { action: row[at.action], to: row[at.image_id] === "" ? "" : row[at.new_label], weight: row[at.weight] });
    }
  }
  const place = `productrec audit ${state.key}`;
  let isKept = true;
  try {
    for (const [subject, mark] of JSON.parse(localStorage.getItem(place) ?? "[]")) {
      if (subjects.has(subject)) marks.set(subject, mark);
    }
  } catch {
    isKept = false;
  }
  const keep = () => {
    try {
      localStorage.setItem(place, JSON.stringify([...marks]));
    } catch {
      isKept = false;
    }
  };

  let problems = new Map();
  const showMark = (item, mark) => {
    for (const radio of all("input[type=radio]", item)) radio.checked = radio.value === mark?.action;
    const input = item.querySelector(".choice input"), select = item.querySelector(".choice select");
    if (input && document.activeElement !== input) {
      input.value = mark?.to ? classes.get(mark.to).shown : mark?.text ?? input.dataset.suggested;
    }
    if (select) select.value = mark?.swap ? "swap" : "";
    item.classList.toggle("marked", Boolean(mark));
  };
  const count = () => {
    const counts = {};
    let marked = 0;
    for (const mark of marks.values()) {
      if (!mark) continue;
      counts[mark.action] = (counts[mark.action] ?? 0) + 1;
      marked += 1;
    }
    const told = Object.entries(counts).map(([action, number]) => `${number} ${action}`).join(", ");
    find("counts").textContent = `${marked} of ${subjects.size.toLocaleString("en")} marked${told ? `: ${told}` : ""}`
      + (isKept ? "" : ". This browser forgets marks when the page is closed: download them first.");
  };
  const refresh = () => {
    problems = findProblems(marks);
    for (const [item, subject] of items) {
      const note = item.querySelector(".problem"), problem = problems.get(subject);
      note.hidden = !problem;
      note.textContent = problem ?? "";
    }
    count();
  };
  const set = (subject, mark) => {
    marks.set(subject, mark);
    for (const item of itemsOf.get(subject) ?? []) showMark(item, mark);
    keep();
    refresh();
    tell("");
  };
  const read = (item, action) => {
    const text = item.querySelector(".choice input")?.value ?? "";
    const weight = item.querySelector("[data-weight]")?.dataset.weight ?? "";
    const isSwapped = item.querySelector(".choice select")?.value === "swap";
    return { action, to: findClass(text) ?? "", text, swap: isSwapped, weight };
  };
  const tell = (text) => {
    find("told").hidden = !text;
    find("told").textContent = text;
  };

  document.addEventListener("change", (event) => {
    const item = event.target.closest?.(".finding");
    if (!item) return;
    const subject = items.get(item), chosen = item.querySelector("input[type=radio]:checked");
    const named = event.target.matches(".choice input, .choice select");
    // To name a class is to say what should happen to it.
    const action = named ? item.querySelector("[value=relabel], [value=merge]").value : chosen?.value;
    if (action) set(subject, read(item, action));
  });
  document.addEventListener("click", (event) => {
    if (event.target.matches?.(".clear")) set(items.get(event.target.closest(".finding")), null);
  });
  document.addEventListener("keydown", (event) => {
    const item = event.target.closest?.(".finding");
    if (item && event.target.matches(".choice input") && (event.key === "Enter" || event.key === "Escape")) {
      if (event.key === "Escape") event.target.value = event.target.dataset.suggested;
      item.focus();
    }
  });

  const mark = (action) => {
    const item = window.page.currentItem();
    if (!item) { window.page.move(0); return; }
    if (!item.querySelector(`[value=${action}]`)) { tell(`${action} is nothing that can be done about this finding.`); return; }
    set(items.get(item), read(item, action));
    if (problems.has(items.get(item))) item.querySelector(".choice input, .choice select")?.focus();
    else window.page.move(1);
  };
  for (const [key, action] of [["k", "keep"], ["d", "drop"], ["r", "relabel"], ["m", "merge"], ["w", "weight"]]) {
    window.page.addKey(key, () => mark(action));
  }
  window.page.addKey("u", () => { const item = window.page.currentItem(); if (item) set(items.get(item), null); });
  window.page.addKey("c", () => {
    const field = window.page.currentItem()?.querySelector(".choice input, .choice select");
    field?.focus();
    field?.select?.();
  });

  const conditions = { all: () => true, open: (item) => !marks.get(items.get(item)), marked: (item) => Boolean(marks.get(items.get(item))) };
  find("which").addEventListener("change", () => window.page.setCondition(conditions[find("which").value]));

  find("download").addEventListener("click", () => {
    if (problems.size) {
      const [subject, problem] = problems.entries().next().value;
      tell(`${problems.size} marks cannot be applied yet. The first: ${problem}`);
      find("which").value = "all";
      find("filter").value = "";
      window.page.setCondition(conditions.all);
      const item = itemsOf.get(subject)?.[0];
      if (item) window.page.goTo(item);
      return;
    }
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([write(marks)], { type: "text/csv;charset=utf-8" }));
    link.download = state.file;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
    tell(`Downloaded. Now: ${find("told").dataset.command}`);
  });

  for (const [item, subject] of items) showMark(item, marks.get(subject));
  refresh();
})();
