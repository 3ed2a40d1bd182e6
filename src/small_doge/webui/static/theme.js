// Runs before the page is drawn, so that a dark page never flashes white.
const chosen = localStorage.getItem("small-doge.theme");
if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;

// Browsers load modules from servers only, so what is opened as a file would never start.
if (location.protocol === "file:") {
  document.addEventListener("DOMContentLoaded", () => {
    document.querySelector(".loading").textContent =
      "This page cannot be opened as a file. Run python -m http.server in its folder, and open http://localhost:8000";
  });
}
