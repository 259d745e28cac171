package dev.wardrobe.adapter;

/**
 * Something that happened to a registry's adapters.
 *
 * @param revision its number; the next event's is one higher
 * @param millis when, since 1970
 * @param name as requests name the adapter; with an alias, the adapter's name alone
 * @param digest empty where none is known
 * @param alias empty but for {@link Kind#ALIAS_SET} and {@link Kind#ALIAS_DELETED}
 * @param detail why, or what, for people; may be empty
 */
public record RegistryEvent(
    long revision,
    long millis,
    Kind kind,
    String name,
    String digest,
    String alias,
    String detail) {

  /** What happened. */
  public enum Kind {
    /** A version is in the store. */
    PUBLISHED,
    /** An alias points elsewhere. */
    ALIAS_SET,
    ALIAS_DELETED,
    /** A name outside of the store stands for a digest. */
    BOUND,
    /** An adapter is being made resident. */
    LOADING,
    /** It is resident. */
    READY,
    /** Its memory went to others. */
    EVICTED,
    /** A name was forgotten, or its memory given back, because somebody said so. */
    UNLOADED,
    /** A version is no longer in the store. */
    DELETED,
    /** An adapter could not be loaded. */
    FAILED,
    /** The roots were looked through. */
    SCANNED
  }
}
