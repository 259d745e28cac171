package dev.wardrobe.adapter;

import dev.wardrobe.compute.Lora;

/** Where a registry gets adapters from. */
interface Loader {

  /** An adapter on the host: read and found good, but not in the backend's memory. */
  interface Candidate extends AutoCloseable {
    Facts facts();

    /** Bytes that it holds on the host. */
    long hostBytes();

    /**
     * Makes it resident; again and by several threads, too.
     *
     * @throws AdapterException if there is no memory for it; nothing is left behind
     */
    Lora upload() throws AdapterException;

    @Override
    void close();
  }

  /**
   * Reads and checks.
   *
   * @throws AdapterException if it cannot be used; nothing is left behind
   */
  Candidate read(Origin origin) throws AdapterException;
}
