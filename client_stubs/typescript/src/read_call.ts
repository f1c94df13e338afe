/** A streamed call of gRPC as something to read from. */

import type { ClientReadableStream, ServiceError } from "@grpc/grpc-js";

/** Reads a stream message by message; gRPC fetches a few ahead, and no more while nobody reads. */
export class ReadCall<Message> {
  readonly #stream: ClientReadableStream<Message>;
  #failure: ServiceError | undefined;
  #isEnded = false;
  #wake: () => void = () => {};

  constructor(stream: ClientReadableStream<Message>) {
    this.#stream = stream;
    stream.on("readable", () => this.#wake());
    stream.on("end", () => {
      this.#isEnded = true;
      this.#wake();
    });
    stream.on("error", (error: ServiceError) => {
      this.#failure = error;
      this.#wake();
    });
  }

  /**
   * The next message; undefined: the call ended well. One at a time.
   *
   * @throws ServiceError the call failed; messages that came before are read first.
   */
  async read(): Promise<Message | undefined> {
    for (;;) {
      const message = this.#stream.read() as Message | null;
      if (message !== null) {
        return message;
      }
      if (this.#failure !== undefined) {
        throw this.#failure;
      }
      if (this.#isEnded) {
        return undefined;
      }
      await new Promise<void>((resolve) => (this.#wake = resolve));
    }
  }

  /** Stops the call; a pending read fails with CANCELLED. */
  cancel(): void {
    this.#stream.cancel();
  }
}
