"use strict";
// What marks make of the findings: which are incomplete or contradict each other, and the CSV that ingest takes.
window.auditCsv = (() => {
  const state = JSON.parse(document.getElementById("findings").textContent);
  const at = Object.fromEntries(state.columns.map((name, position) => [name, position]));
  const classes = new Map(state.classes.map(([id, shown, guarded]) => [String(id), { shown, guarded }]));

  const isImage = (row) => row[at.image_id] !== "";
  const nameSubject = (row) => JSON.stringify(
    isImage(row) ? [row[at.image_id]] : [row[at.kind], row[at.label], row[at.new_label]]);
  const subjects = new Map();
  state.rows.forEach((row, number) => {
    const name = nameSubject(row);
    if (!subjects.has(name)) subjects.set(name, []);
    subjects.get(name).push(number);
  });

  // A class as a person writes it: as it is offered, by its id, or by a name that only one class has.
  const byText = new Map();
  const offer = (text, id) => {
    const folded = text.trim().toLowerCase();
    byText.set(folded, byText.has(folded) && byText.get(folded) !== id ? null : id);
  };
  for (const [id, { shown }] of classes) {
    const bare = shown.endsWith(` (${id})`) ? shown.slice(0, -` (${id})`.length) : shown;
    if (bare !== shown) offer(bare, id);
  }
  for (const [id] of classes) byText.set(id, id);
  for (const [id, { shown }] of classes) byText.set(shown.trim().toLowerCase(), id);
  const findClass = (text) => byText.get(text.trim().toLowerCase()) ?? null;

  const getPair = (row, mark) => {
    const from = row[at.label], to = row[at.new_label];
    if (to === "" || mark.to) return [from, mark.to || null];
    return mark.swap ? [to, from] : [from, to];
  };

  // Problems by subject: what ingest would refuse, said before it does.
  const findProblems = (marks) => {
    const problems = new Map();
    const merged = new Map(), targets = new Set();
    for (const [subject, mark] of marks) {
      if (mark?.action !== "merge") continue;
      const [from, to] = getPair(state.rows[subjects.get(subject)[0]], mark);
      if (!to) problems.set(subject, "Name the class that it becomes, one of the list.");
      else if (from === to) problems.set(subject, "A class cannot be merged into itself.");
      else {
        merged.set(from, [...(merged.get(from) ?? []), { subject, to }]);
        targets.add(to);
      }
    }
    for (const [from, merges] of merged) {
      const isTwice = new Set(merges.map(({ to }) => to)).size > 1;
      for (const { subject } of merges) {
        if (isTwice) problems.set(subject, `${classes.get(from)?.shown} is merged into two classes.`);
        else if (targets.has(from)) {
          problems.set(subject, `Other classes are merged into ${classes.get(from)?.shown}; it must stay itself.`);
        }
      }
    }
    for (const [subject, mark] of marks) {
      if (mark?.action !== "relabel") continue;
      if (!mark.to) problems.set(subject, "Name the class that it belongs to, one of the list.");
      else if (merged.has(mark.to)) problems.set(subject, `${classes.get(mark.to)?.shown} is merged into another class.`);
    }
    return problems;
  };

  const quote = (cell) => /[",\r\n]/.test(cell) ? `"${cell.replaceAll('"', '""')}"` : cell;
  const change = (row, mark) => {
    if (mark === undefined) return row;
    const cells = [...row];
    cells[at.action] = mark === null || mark.action === "keep" ? "" : mark.action;
    if (mark?.action === "weight") cells[at.weight] = mark.weight;
    if (mark?.action === "relabel" || mark?.action === "merge") {
      const [from, to] = mark.action === "merge" ? getPair(row, mark) : [row[at.label], mark.to];
      for (const [column, id] of [["label", from], ["new_label", to]]) {
        if (cells[at[column]] === id) continue;
        cells[at[column]] = id;
        cells[at[`${column}_name`]] = classes.get(id).guarded;
      }
    }
    return cells;
  };
  const write = (marks) => [state.columns, ...state.rows.map((row) => change(row, marks.get(nameSubject(row))))]
    .map((row) => row.map(quote).join(",") + "\n").join("");

  return { state, at, classes, subjects, nameSubject, isImage, findClass, findProblems, write };
})();
