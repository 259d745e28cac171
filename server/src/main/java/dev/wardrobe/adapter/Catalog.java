package dev.wardrobe.adapter;

import static dev.wardrobe.adapter.AdapterException.quote;

import dev.wardrobe.adapter.AdapterException.Reason;
import java.time.Instant;
import java.time.temporal.ChronoUnit;
import java.util.ArrayList;
import java.util.Collections;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Set;
import java.util.SortedMap;
import java.util.TreeMap;
import java.util.function.Predicate;
import java.util.regex.Pattern;
import org.jspecify.annotations.Nullable;

/**
 * What a store's adapters are called: names, their versions, and the aliases that point to them.
 *
 * <p>A version never changes what it stands for. An alias does: it has a target, one digest or
 * several that share its requests by weight, perhaps a shadow, and what it was set to before. Each
 * name has the alias {@link #LATEST}, which publishing sets to the new version, and which a bare
 * name means.
 *
 * <p>Immutable; each change gives the next catalog, with the next revision. Whatever has an empty
 * change gives the same catalog.
 */
public final class Catalog {
  /** The alias that a bare name means. */
  public static final String LATEST = "latest";

  /** Settings of an alias that can be rolled back to. */
  public static final int LONGEST_HISTORY = 16;

  private static final int LONGEST_NAME = 200;

  /** Digits of a version that is a number. */
  private static final int LONGEST_NUMBER = 15;

  private static final int LONGEST_LABEL = 64;
  private static final int MOST_SHARES = 16;
  private static final int LARGEST_WEIGHT = 1_000_000;

  // What OCI layouts take as a reference's parts, less '@' and, in names, '+'.
  private static final String COMPONENT = "[A-Za-z0-9]+(?:(?:[-._]|--)[A-Za-z0-9]+)*";
  private static final Pattern NAME = Pattern.compile(COMPONENT + "(?:/" + COMPONENT + ")*");
  private static final Pattern LABEL =
      Pattern.compile("[A-Za-z0-9]+(?:(?:[-._+]|--)[A-Za-z0-9]+)*");

  /** A catalog without names. */
  public static final Catalog EMPTY = new Catalog(0, new TreeMap<>());

  private final long revision;
  private final SortedMap<String, Entry> entries;
  private volatile @Nullable Map<String, Content> contents;

  private Catalog(long revision, SortedMap<String, Entry> entries) {
    this.revision = revision;
    this.entries = Collections.unmodifiableSortedMap(entries);
  }

  static Catalog of(long revision, SortedMap<String, Entry> entries) {
    return new Catalog(revision, entries);
  }

  /**
   * A published version of a name.
   *
   * @param label what follows the {@code @}
   * @param content what it stands for, for ever
   * @param time when it was published, in milliseconds
   */
  public record Version(String label, Content content, Instant time) {
    public String digest() {
      return content.digest();
    }
  }

  /** A digest, and what it gets of an alias's requests in proportion to the other weights. */
  public record Share(String digest, int weight) {}

  /** What an alias stands for: one digest, or several that share its requests. */
  public record Target(List<Share> shares) {

    /**
     * A target.
     *
     * @throws IllegalArgumentException if it has no share, too many, two of one digest, or weights
     *     that are not positive
     */
    public Target {
      shares = List.copyOf(shares);
      Set<String> digests = new HashSet<>();
      if (shares.isEmpty() || shares.size() > MOST_SHARES) {
        throw new IllegalArgumentException(
            "target: expected 1 to %d shares, got %d".formatted(MOST_SHARES, shares.size()));
      }
      for (Share share : shares) {
        if (!digests.add(share.digest())) {
          throw new IllegalArgumentException(
              "target: expected each adapter once, got '%s' twice; add up its weights"
                  .formatted(share.digest()));
        }
        if (share.weight() < 1 || share.weight() > LARGEST_WEIGHT) {
          throw new IllegalArgumentException(
              "target: expected weights from 1 to %d, got %d"
                  .formatted(LARGEST_WEIGHT, share.weight()));
        }
      }
    }

    /** One digest alone. */
    public static Target of(String digest) {
      return new Target(List.of(new Share(digest, 1)));
    }

    /** The digest with the largest share; the first of several such. */
    public String main() {
      Share main = shares.getFirst();
      for (Share share : shares) {
        if (share.weight() > main.weight()) {
          main = share;
        }
      }
      return main.digest();
    }
  }

  /**
   * A candidate that gets copies of an alias's requests, and whose answers nobody sees.
   *
   * @param fraction of the requests that are copied, above 0 and at most 1
   */
  public record Shadow(String digest, double fraction) {
    public Shadow {
      if (!(fraction > 0 && fraction <= 1)) {
        throw new IllegalArgumentException(
            "shadow: expected a fraction above 0 and at most 1, got " + fraction);
      }
    }
  }

  /**
   * What an alias was set to, and when.
   *
   * @param time in milliseconds
   */
  public record Setting(Target target, @Nullable Shadow shadow, Instant time) {
    private boolean uses(String digest) {
      return (shadow != null && shadow.digest().equals(digest))
          || target.shares().stream().anyMatch(share -> share.digest().equals(digest));
    }

    /** The same without a digest; {@code otherwise} if that was the whole target. */
    private Setting without(String digest, Setting otherwise) {
      List<Share> left =
          target.shares().stream().filter(share -> !share.digest().equals(digest)).toList();
      return left.isEmpty()
          ? otherwise
          : new Setting(
              new Target(left),
              shadow == null || shadow.digest().equals(digest) ? null : shadow,
              time);
    }
  }

  /**
   * An alias.
   *
   * @param label what follows the {@code @}
   * @param earlier what it was set to before, oldest first
   */
  public record Alias(String label, Setting current, List<Setting> earlier) {
    public Alias {
      earlier = List.copyOf(earlier);
    }

    public Target target() {
      return current.target();
    }

    public @Nullable Shadow shadow() {
      return current.shadow();
    }

    private Alias set(Setting next) {
      List<Setting> past = new ArrayList<>(earlier);
      past.add(current);
      int surplus = Math.max(0, past.size() - LONGEST_HISTORY);
      return new Alias(label, next, past.subList(surplus, past.size()));
    }

    private Alias forget(String digest) {
      return earlier.stream().noneMatch(setting -> setting.uses(digest))
          ? this
          : new Alias(
              label, current, earlier.stream().filter(setting -> !setting.uses(digest)).toList());
    }
  }

  /**
   * A name.
   *
   * @param lastNumber the highest number that a version has had; not given again
   * @param versions in the order of their publishing
   * @param aliases by label
   */
  public record Entry(
      String name, long lastNumber, List<Version> versions, SortedMap<String, Alias> aliases) {
    public Entry {
      versions = List.copyOf(versions);
      aliases = Collections.unmodifiableSortedMap(new TreeMap<>(aliases));
    }

    /** The version of that label, or null. */
    public @Nullable Version version(String label) {
      for (Version version : versions) {
        if (version.label().equals(label)) {
          return version;
        }
      }
      return null;
    }

    /** The alias of that label, or null. */
    public @Nullable Alias alias(String label) {
      return aliases.get(label);
    }

    private boolean has(String digest) {
      return versions.stream().anyMatch(version -> version.digest().equals(digest));
    }

    private Entry with(Alias alias) {
      SortedMap<String, Alias> next = new TreeMap<>(aliases);
      next.put(alias.label(), alias);
      return new Entry(name, lastNumber, versions, next);
    }
  }

  /**
   * A reference that was found.
   *
   * @param name empty if the reference was a digest
   * @param label of the version or alias; empty if the reference was a digest
   */
  public record Found(String name, String label, Target target, @Nullable Shadow shadow) {}

  /** Counts the changes that led here. */
  public long revision() {
    return revision;
  }

  /** All names. */
  public SortedMap<String, Entry> entries() {
    return entries;
  }

  /** The name, or null. */
  public @Nullable Entry entry(String name) {
    return entries.get(name);
  }

  /** What all versions stand for, by digest. */
  public Map<String, Content> contents() {
    Map<String, Content> known = contents;
    if (known == null) {
      Map<String, Content> all = new HashMap<>();
      for (Entry entry : entries.values()) {
        for (Version version : entry.versions()) {
          all.put(version.digest(), version.content());
        }
      }
      known = Collections.unmodifiableMap(all);
      contents = known;
    }
    return known;
  }

  /**
   * What {@code NAME}, {@code NAME@VERSION}, {@code NAME@ALIAS} or a digest stands for, or null if
   * there is nothing of that name here.
   */
  public @Nullable Found find(String reference) {
    if (reference.startsWith("sha256:")) {
      return contents().containsKey(reference)
          ? new Found("", "", Target.of(reference), null)
          : null;
    }
    int at = reference.indexOf('@');
    String name = at < 0 ? reference : reference.substring(0, at);
    String label = at < 0 ? LATEST : reference.substring(at + 1);
    Entry entry = entries.get(name);
    if (entry == null) {
      return null;
    }
    Alias alias = entry.alias(label);
    if (alias != null) {
      return new Found(name, label, alias.target(), alias.shadow());
    }
    Version version = entry.version(label);
    return version == null ? null : new Found(name, label, Target.of(version.digest()), null);
  }

  /**
   * Checks a name by itself.
   *
   * @throws AdapterException INVALID if no store takes it
   */
  public static void checkName(String name) throws AdapterException {
    if (name.length() > LONGEST_NAME || !NAME.matcher(name).matches()) {
      throw new AdapterException(
          Reason.INVALID,
          "name: expected at most %d letters and digits, with single '-', '.', '_' or '/' between"
                  .formatted(LONGEST_NAME)
              + " them, got %s; choose another name".formatted(quote(name)));
    }
  }

  /**
   * Checks the label of a version by itself.
   *
   * @throws AdapterException INVALID if no store takes it
   */
  public static void checkVersion(String label) throws AdapterException {
    checkLabel("version", label);
    if (label.length() > LONGEST_NUMBER && isNumber(label)) {
      throw new AdapterException(
          Reason.INVALID,
          "version: expected a number of at most %d digits, since the next one is one more, got %s;"
                  .formatted(LONGEST_NUMBER, quote(label))
              + " put a letter before it");
    }
    if (label.equals(LATEST)) {
      throw new AdapterException(
          Reason.INVALID,
          "version: expected another word than '%s', the alias of the newest version; choose"
                  .formatted(LATEST)
              + " another");
    }
  }

  /**
   * Checks the label of an alias by itself.
   *
   * @throws AdapterException INVALID if no store takes it
   */
  public static void checkAlias(String label) throws AdapterException {
    checkLabel("alias", label);
    if (label.charAt(0) >= '0' && label.charAt(0) <= '9') {
      throw new AdapterException(
          Reason.INVALID,
          "alias: expected a letter first, since numbers are versions, got %s; choose another"
              .formatted(quote(label)));
    }
  }

  private static void checkLabel(String what, String label) throws AdapterException {
    if (label.length() > LONGEST_LABEL || !LABEL.matcher(label).matches()) {
      throw new AdapterException(
          Reason.INVALID,
          "%s: expected at most %d letters and digits, with single '-', '.', '_' or '+' between"
                  .formatted(what, LONGEST_LABEL)
              + " them, got %s; choose another".formatted(quote(label)));
    }
  }

  /** The number that the next version of {@code name} gets if it is not given another label. */
  public String nextVersion(String name) {
    Entry entry = entries.get(name);
    return Long.toString(entry == null ? 1 : entry.lastNumber() + 1);
  }

  /**
   * Adds a version, and sets the alias {@link #LATEST} to it. Publishing the same content under the
   * same label once more changes nothing.
   *
   * @throws AdapterException INVALID if the name or label is not one; EXISTS if the label stands
   *     for something else
   */
  public Catalog publish(String name, String label, Content content, Instant time)
      throws AdapterException {
    checkName(name);
    AdapterName.checkEnd(name);
    checkVersion(label);
    Entry entry = entries.get(name);
    if (entry == null) {
      entry = new Entry(name, 0, List.of(), new TreeMap<>());
    }
    Version taken = entry.version(label);
    if (taken != null && taken.content().equals(content)) {
      return this;
    }
    if (taken != null) {
      throw new AdapterException(
          Reason.EXISTS,
          "version %s of %s is %s, and a version never changes; publish under another version"
              .formatted(quote(label), quote(name), taken.digest()));
    }
    if (entry.alias(label) != null) {
      throw new AdapterException(
          Reason.EXISTS,
          "%s is an alias of %s; choose another version".formatted(quote(label), quote(name)));
    }
    Instant at = time.truncatedTo(ChronoUnit.MILLIS);
    List<Version> versions = new ArrayList<>(entry.versions());
    versions.add(new Version(label, content, at));
    Setting setting = new Setting(Target.of(content.digest()), null, at);
    Alias latest = entry.alias(LATEST);
    return with(
        new Entry(name, Math.max(entry.lastNumber(), number(label)), versions, entry.aliases())
            .with(latest == null ? new Alias(LATEST, setting, List.of()) : latest.set(setting)));
  }

  /** The number that a label is, or 0. */
  private static long number(String label) {
    return isNumber(label) ? Long.parseLong(label) : 0;
  }

  private static boolean isNumber(String label) {
    return label.chars().allMatch(c -> c >= '0' && c <= '9');
  }

  /** Gives no version of {@code name}, if there is one, a number up to {@code last} any more. */
  Catalog numberFrom(String name, long last) {
    Entry entry = entries.get(name);
    return entry == null || entry.lastNumber() >= last
        ? this
        : with(new Entry(name, last, entry.versions(), entry.aliases()));
  }

  /**
   * Points an alias, perhaps a new one, to versions of its name.
   *
   * @param shadow null for none
   * @throws AdapterException INVALID if the label is not one; EXISTS if it is a version's;
   *     NOT_FOUND if there is no such name, or a digest is none of its versions
   */
  public Catalog setAlias(
      String name, String label, Target target, @Nullable Shadow shadow, Instant time)
      throws AdapterException {
    checkAlias(label);
    Entry entry = known(name);
    if (entry.version(label) != null) {
      throw new AdapterException(
          Reason.EXISTS,
          "%s is a version of %s, and a version never changes; choose another alias"
              .formatted(quote(label), quote(name)));
    }
    for (Share share : target.shares()) {
      checkHas(entry, share.digest());
    }
    if (shadow != null) {
      checkHas(entry, shadow.digest());
    }
    Setting setting = new Setting(target, shadow, time.truncatedTo(ChronoUnit.MILLIS));
    Alias alias = entry.alias(label);
    if (alias == null) {
      return with(entry.with(new Alias(label, setting, List.of())));
    }
    boolean same = alias.target().equals(target) && Objects.equals(alias.shadow(), shadow);
    return same ? this : with(entry.with(alias.set(setting)));
  }

  private static void checkHas(Entry entry, String digest) throws AdapterException {
    if (!entry.has(digest)) {
      throw new AdapterException(
          Reason.NOT_FOUND,
          "expected a version of %s, got %s, which is none of them; publish it under this name"
                  .formatted(quote(entry.name()), quote(digest))
              + " first");
    }
  }

  /**
   * Sets an alias to what it was before, which then is no longer in its history.
   *
   * @throws AdapterException NOT_FOUND if there is no such alias, or nothing before
   */
  public Catalog rollback(String name, String label, Instant time) throws AdapterException {
    Entry entry = undo(name, label).known(name);
    Alias alias = knownAlias(entry, label);
    Setting setting =
        new Setting(alias.target(), alias.shadow(), time.truncatedTo(ChronoUnit.MILLIS));
    return with(entry.with(new Alias(label, setting, alias.earlier())));
  }

  /**
   * As {@link #rollback}, as if what is there now had never been set.
   *
   * @throws AdapterException NOT_FOUND if there is no such alias, or nothing before
   */
  Catalog undo(String name, String label) throws AdapterException {
    Entry entry = known(name);
    Alias alias = knownAlias(entry, label);
    if (alias.earlier().isEmpty()) {
      throw new AdapterException(
          Reason.NOT_FOUND,
          "alias %s of %s: expected an earlier setting, got none; set the alias to a version"
              .formatted(quote(label), quote(name)));
    }
    List<Setting> earlier = alias.earlier();
    return with(
        entry.with(new Alias(label, earlier.getLast(), earlier.subList(0, earlier.size() - 1))));
  }

  /**
   * Removes an alias.
   *
   * @throws AdapterException NOT_FOUND if there is none; IN_USE if it is {@link #LATEST}
   */
  public Catalog deleteAlias(String name, String label) throws AdapterException {
    Entry entry = known(name);
    knownAlias(entry, label);
    if (label.equals(LATEST)) {
      throw new AdapterException(
          Reason.IN_USE,
          "the alias '%s' stays as long as its name; set it to another version".formatted(LATEST));
    }
    SortedMap<String, Alias> aliases = new TreeMap<>(entry.aliases());
    aliases.remove(label);
    return with(new Entry(name, entry.lastNumber(), entry.versions(), aliases));
  }

  /**
   * Removes a version, from the shares and the shadow of {@link #LATEST} too; where that pointed to
   * nothing else, it goes to the newest of those left. The name goes with its last version.
   *
   * @throws AdapterException NOT_FOUND if there is none; IN_USE if another alias points to it
   */
  public Catalog deleteVersion(String name, String label) throws AdapterException {
    Entry entry = known(name);
    Version version = entry.version(label);
    if (version == null) {
      throw new AdapterException(
          Reason.NOT_FOUND,
          "expected a version of %s, got %s; list its versions"
              .formatted(quote(name), quote(label)));
    }
    List<Version> left =
        entry.versions().stream().filter(other -> !other.label().equals(label)).toList();
    if (left.isEmpty()) {
      checkUnaliased(entry, version, alias -> true);
      return without(name);
    }
    String digest = version.digest();
    if (left.stream().anyMatch(other -> other.digest().equals(digest))) {
      return with(new Entry(name, entry.lastNumber(), left, entry.aliases()));
    }
    checkUnaliased(entry, version, alias -> alias.current().uses(digest));
    SortedMap<String, Alias> aliases = new TreeMap<>();
    for (Alias alias : entry.aliases().values()) {
      Alias next = alias.forget(digest);
      if (next.current().uses(digest)) {
        Version newest = left.getLast();
        Setting setting = new Setting(Target.of(newest.digest()), null, newest.time());
        next = new Alias(LATEST, next.current().without(digest, setting), next.earlier());
      }
      aliases.put(next.label(), next);
    }
    return with(new Entry(name, entry.lastNumber(), left, aliases));
  }

  private static void checkUnaliased(Entry entry, Version version, Predicate<Alias> needs)
      throws AdapterException {
    List<String> needing =
        entry.aliases().values().stream()
            .filter(alias -> !alias.label().equals(LATEST) && needs.test(alias))
            .map(Alias::label)
            .toList();
    if (!needing.isEmpty()) {
      throw new AdapterException(
          Reason.IN_USE,
          "version %s of %s is what the alias %s points to; set or delete the alias first"
              .formatted(
                  quote(version.label()), quote(entry.name()), quote(String.join(", ", needing))));
    }
  }

  /**
   * Removes a name with all its versions and aliases.
   *
   * @throws AdapterException NOT_FOUND if there is none
   */
  public Catalog delete(String name) throws AdapterException {
    known(name);
    return without(name);
  }

  private Entry known(String name) throws AdapterException {
    Entry entry = entries.get(name);
    if (entry == null) {
      throw new AdapterException(
          Reason.NOT_FOUND,
          "expected a name in the store, got %s; list its names".formatted(quote(name)));
    }
    return entry;
  }

  private static Alias knownAlias(Entry entry, String label) throws AdapterException {
    Alias alias = entry.alias(label);
    if (alias == null) {
      throw new AdapterException(
          Reason.NOT_FOUND,
          "expected an alias of %s, got %s; list its aliases"
              .formatted(quote(entry.name()), quote(label)));
    }
    return alias;
  }

  private Catalog with(Entry entry) {
    SortedMap<String, Entry> next = new TreeMap<>(entries);
    next.put(entry.name(), entry);
    return new Catalog(revision + 1, next);
  }

  private Catalog without(String name) {
    SortedMap<String, Entry> next = new TreeMap<>(entries);
    next.remove(name);
    return new Catalog(revision + 1, next);
  }

  /** Whether both call the same things by the same names, at the same revision. */
  @Override
  public boolean equals(@Nullable Object other) {
    return other instanceof Catalog that
        && revision == that.revision
        && entries.equals(that.entries);
  }

  @Override
  public int hashCode() {
    return 31 * Long.hashCode(revision) + entries.hashCode();
  }

  @Override
  public String toString() {
    return "revision " + revision + ": " + entries.values();
  }
}
