"use strict";
(() => {
  const { find, fold, split, fitsAll, move } = window.page;

  // Arrows go through the items too, but not where they scroll a table or move in a field.
  document.addEventListener("keydown", (event) => {
    if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || event.shiftKey) return;
    if (event.target.closest?.(".scroll, pre, input, textarea, select, dialog")) return;
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (step) { event.preventDefault(); move(step); }
  });

  // Findings: lines are given without their action, which is chosen here for all of them.
  const lines = find("findings");
  if (lines) {
    const { before, after } = JSON.parse(lines.textContent);
    const text = find("findings-text"), action = find("findings-action"), told = find("findings-told");
    const write = () => {
      text.value = before.map((line, row) => `${line},${row ? action.value : "action"},${after[row]}\n`).join("");
      told.textContent = "";
    };
    action.addEventListener("change", write);
    write();
    find("findings-copy").addEventListener("click", async () => {
      try {
        await navigator.clipboard.writeText(text.value);
        told.textContent = "copied";
      } catch {
        text.focus();
        text.select();
        told.textContent = document.execCommand("copy") ? "copied" : "selected: copy it with the keyboard";
      }
    });
    find("findings-save").addEventListener("click", () => {
      const link = document.createElement("a");
      link.href = URL.createObjectURL(new Blob([text.value], { type: "text/csv" }));
      link.download = "findings.csv";
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 10000);
      told.textContent = "saved";
    });
  }

  // Answers: columns, of which the rows that fit are shown, some at a time.
  const kept = find("answers-data");
  if (!kept) return;
  const STEP = 100;
  const table = find("answers-table"), body = table.tBodies[0];
  const filter = find("filter"), onlyWrong = find("answers-wrong"), more = find("answers-more");
  let data = null, texts = null, fits = [], shown = 0;
  const read = () => {
    if (data) return;
    data = JSON.parse(kept.textContent);
    const names = data.classes.map(fold);
    texts = data.id.map((id, row) => {
      const label = data.label[row];
      return `${fold(id)} ${names[data.best[row]]}${label < 0 || label === data.best[row] ? "" : " " + names[label]}`;
    });
  };
  const isWrong = (row) => data.label[row] >= 0 && data.label[row] !== data.best[row];
  const addRow = (row) => {
    const line = body.insertRow();
    const head = document.createElement("th");
    head.scope = "row";
    head.textContent = data.id[row];
    line.append(head);
    const label = data.label[row];
    const cells = [data.splits[data.split[row]], label < 0 ? "" : data.classes[label], data.classes[data.best[row]]];
    for (const text of cells) line.insertCell().textContent = text;
    if (isWrong(row)) line.cells[3].className = "warn";
    const sure = line.insertCell();
    sure.className = "number";
    sure.textContent = `${(data.confidence[row] / 10).toFixed(1)} %`;
  };
  const showMore = () => {
    for (const row of fits.slice(shown, shown + STEP)) addRow(row);
    shown = Math.min(shown + STEP, fits.length);
    more.hidden = shown >= fits.length;
    table.hidden = !fits.length;
    find("answers-told").textContent = `${fits.length.toLocaleString("en")} fit, ${shown.toLocaleString("en")} shown`;
  };
  const search = () => {
    read();
    const words = split(filter.value);
    fits = [];
    for (let row = 0; row < texts.length; row++) {
      if (onlyWrong.checked && !isWrong(row)) continue;
      if (fitsAll(words, texts[row])) fits.push(row);
    }
    body.replaceChildren();
    shown = 0;
    showMore();
  };
  let waiting = 0;
  const searchSoon = () => { clearTimeout(waiting); waiting = setTimeout(search, 200); };
  filter.addEventListener("input", searchSoon);
  filter.addEventListener("keydown", (event) => { if (event.key === "Escape") searchSoon(); });
  onlyWrong.addEventListener("change", search);
  more.addEventListener("click", showMore);
  new IntersectionObserver((entries, observer) => {
    if (!entries.some((entry) => entry.isIntersecting)) return;
    observer.disconnect();
    if (!data) search();
  }, { rootMargin: "400px" }).observe(find("answers"));
})();
