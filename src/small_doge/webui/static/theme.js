// Runs before the page is drawn, so that a dark page never flashes white.
const chosen = localStorage.getItem("small-doge.theme");
if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
