package dev.wardrobe.adapter;

import dev.wardrobe.compute.Lora;

/** Where a registry gets adapters from. */
interface Loader {

  /** An adapter that was read and found good, but is not resident yet. */
  interface Candidate extends AutoCloseable {
    Facts facts();

    /**
     * Makes it resident.
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
