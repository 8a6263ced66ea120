/** The service behind the page: what is asked of it, and its refusals in words. */

/** @typedef {import("./drawing.js").Result} Result */

const PATIENCE_S = 120; // for one picture

let token = ""; // held here alone, never stored

/** What the service refused, or would refuse, with the reason; status 0 for what the page refuses by itself. */
class Refusal extends Error {
  constructor(status, reason) {
    super(reason);
    this.status = status;
  }
}

/** @param {string} given sent with every request from now on */
export function useToken(given) {
  token = given.trim();
}

/** Ask the service, and read its JSON. */
export async function ask(path, options = {}) {
  if (/[^!-~]/.test(token)) { // fetch fails as without a network at what a header cannot carry
    throw new Refusal(401, "The token has a space or a character that no token can have.");
  }
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  const answer = await fetch(path, { ...options, headers });
  const told = await answer.json().catch(() => null);
  if (answer.ok && told) return told;
  const reason = typeof told?.detail === "string" ? told.detail : "The service gives no reason.";
  throw new Refusal(answer.status, reason);
}

/**
 * What is in one picture.
 * @param {File} file
 * @param {number} threshold least score
 * @param {{max_upload_bytes: number}} limits
 * @param {AbortSignal} removed ends it
 * @returns {Promise<Result>}
 */
export async function askAbout(file, threshold, { max_upload_bytes: most }, removed) {
  if (file.size > most) {
    throw new Refusal(0, `The file has ${megabytes(file.size)}; the service takes ${megabytes(most)} at most.`);
  }
  const body = new FormData();
  body.append("files", file);
  body.append("threshold", threshold);
  const signal = AbortSignal.any([removed, AbortSignal.timeout(PATIENCE_S * 1000)]);
  return (await ask("predict", { method: "POST", body, signal })).results[0];
}

/** An error in words for the reader. */
export function explain(error) {
  if (error instanceof Refusal) return error.status ? `${error.message} (${error.status})` : error.message;
  if (error.name === "TimeoutError") return `No answer within ${PATIENCE_S} s.`;
  return `The service cannot be reached, or the file cannot be read (${error.message}).`;
}

/** @param {number} bytes */
export function megabytes(bytes) {
  return `${Math.ceil(bytes / 1e4) / 100} MB`;
}
