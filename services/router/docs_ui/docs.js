// Renders /openapi.json with Swagger UI, which can also send the requests. The admin
// token of this tab's login to the dashboard is sent with them.
const TOKEN = "admin-token"; // its key in sessionStorage, as in /dashboard/app.js

const dark = matchMedia("(prefers-color-scheme: dark)");
const adapt = () => document.documentElement.classList.toggle("dark-mode", dark.matches);
dark.addEventListener("change", adapt);
adapt();

function stored() {
  try {
    return sessionStorage.getItem(TOKEN);
  } catch {
    return null; // storage is turned off
  }
}

function withToken(request) {
  const own = Object.keys(request.headers).some((name) => name.toLowerCase() === "authorization");
  const ours = new URL(request.url, location.href);
  const admin = ours.origin === location.origin && ours.pathname.startsWith("/admin");
  if (admin && !own && stored()) request.headers.authorization = `Bearer ${stored()}`;
  return request;
}

window.SwaggerUIBundle({
  url: "/openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  tryItOutEnabled: true,
  validatorUrl: null, // it is on another host
  docExpansion: "list",
  defaultModelsExpandDepth: 0,
  requestInterceptor: withToken,
});
