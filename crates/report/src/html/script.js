"use strict";
(() => {
  const root = document.documentElement;
  root.classList.add("js");
  const theme = document.getElementById("theme");
  theme.hidden = false;
  theme.addEventListener("click", () => {
    const dark = root.dataset.theme
      ? root.dataset.theme === "dark"
      : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
  });

  // Of several, one is shown; without a script all of them are.
  const choose = (select, parts, chosen) => {
    select.value = String(chosen);
    parts.forEach((part, at) => { part.hidden = at !== chosen; });
  };
  for (const select of document.querySelectorAll("select[data-parts]")) {
    const parts = [...document.querySelectorAll(select.dataset.parts)];
    select.closest("label").hidden = false;
    select.addEventListener("change", () => {
      if (select.id === "run-choice") { location.hash = "run-" + (Number(select.value) + 1); }
      choose(select, parts, Number(select.value));
    });
    choose(select, parts, 0);
  }
  const runs = document.getElementById("run-choice");
  const follow = () => {
    const number = /^#run-(\d+)$/.exec(location.hash);
    const sections = [...document.querySelectorAll("section.run")];
    const at = number ? Math.min(Number(number[1]), sections.length) - 1 : 0;
    if (!runs || at < 0) { return; }
    choose(runs, sections, at);
    document.querySelectorAll("tr[data-run]").forEach((row) => {
      row.classList.toggle("chosen", Number(row.dataset.run) === at);
    });
  };
  addEventListener("hashchange", follow);
  follow();
})();
