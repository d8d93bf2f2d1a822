// client.js - requests to the service that this page came from. It only reads.

/** An answer of problem+json. */
export class Problem extends Error {
  /**
   * @param {number} status
   * @param {string} code
   * @param {string} detail
   */
  constructor(status, code, detail) {
    super(detail);
    this.status = status;
    this.code = code;
  }
}

/** Nobody answered: the service is stopped, or the network is gone. */
export class Unreachable extends Error {}

export class Client {
  /** In this page's memory only: a reload asks again, or follows the link with #token=... again. */
  #token = "";
  /** @type {Promise<string> | undefined} */
  #asking;
  #ask;

  /** @param {(refused: boolean) => Promise<string>} ask Asks the person for a token. */
  constructor(ask) {
    this.#ask = ask;
    const fragment = new URLSearchParams(location.hash.slice(1));
    this.#token = fragment.get("token") ?? "";
    if (this.#token !== "") history.replaceState(null, "", location.pathname);
  }

  /**
   * @param {string} path
   * @param {AbortSignal} [signal]
   * @returns {Promise<any>} the answer's JSON
   */
  async json(path, signal) {
    return this.#get(path, {}, signal, (response) => response.json());
  }

  /**
   * Bytes of one generation.
   * @param {string} region
   * @param {number} offset
   * @param {number} length at least 1
   * @param {AbortSignal} [signal]
   */
  async bytes(region, offset, length, signal) {
    const range = `bytes=${offset}-${offset + length - 1}`;
    return this.#get(`/v1/regions/${region}/content`, { range }, signal, async (response) => {
      const generation = Number(response.headers.get("region-generation"));
      const durableGeneration = Number(response.headers.get("region-durable-generation"));
      return { bytes: new Uint8Array(await response.arrayBuffer()), generation, durableGeneration };
    });
  }

  /**
   * @template T
   * @param {string} path
   * @param {Record<string, string>} headers
   * @param {AbortSignal | undefined} signal
   * @param {(response: Response) => Promise<T>} read
   * @returns {Promise<T>}
   */
  async #get(path, headers, signal, read) {
    const token = this.#token;
    /** @type {Record<string, string>} */
    const authorization = token === "" ? {} : { authorization: `Bearer ${token}` };
    let response;
    let problem;
    try {
      response = await fetch(path, { headers: { ...headers, ...authorization }, signal: signal ?? null });
      if (response.ok) return await read(response);
      problem = await response.json();
    } catch (error) {
      // A body that breaks off is a service that went away, too.
      if (signal?.aborted) throw error;
      throw new Unreachable("nobody answers");
    }
    if (response.status !== 401) throw new Problem(response.status, problem.code, problem.detail);
    await this.#newToken(token);
    return this.#get(path, headers, signal, read);
  }

  /**
   * One question for all requests that were refused with the same token.
   * @param {string} refused
   */
  async #newToken(refused) {
    if (this.#token !== refused) return;
    this.#asking ??= this.#ask(refused !== "");
    this.#token = await this.#asking;
    this.#asking = undefined;
  }
}
