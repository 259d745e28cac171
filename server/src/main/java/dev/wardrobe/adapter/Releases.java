package dev.wardrobe.adapter;

import static dev.wardrobe.adapter.AdapterException.quote;

import dev.wardrobe.adapter.AdapterException.Reason;
import dev.wardrobe.adapter.Catalog.Alias;
import dev.wardrobe.adapter.Catalog.Entry;
import dev.wardrobe.adapter.Catalog.Setting;
import dev.wardrobe.adapter.Catalog.Shadow;
import dev.wardrobe.adapter.Catalog.Share;
import dev.wardrobe.adapter.Catalog.Target;
import dev.wardrobe.adapter.Catalog.Version;
import dev.wardrobe.adapter.RegistryEvent.Kind;
import java.lang.foreign.Arena;
import java.lang.foreign.ValueLayout;
import java.time.Instant;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.HashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Objects;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.locks.ReentrantLock;
import java.util.stream.Collectors;
import java.util.stream.Stream;
import org.jspecify.annotations.Nullable;

/**
 * The versions and aliases of a server's store, as requests see them: what a reference stands for
 * at this moment, who gets which share, and what came of it.
 *
 * <p>Safe for use by all threads. {@link #route} neither waits nor touches files; changes do both.
 */
final class Releases {
  /** Of names: by the adapter's name, then by the version, numbers as numbers. */
  static final Comparator<String> ORDER =
      Comparator.comparing(Releases::base).thenComparing(Releases::label, Releases::compareLabels);

  private final AdapterStore store;
  private final AdapterOptions options;
  private final EventLog events;

  /** What the configs of versions say that nobody has asked for yet, by digest. */
  private final Map<String, Outline> outlines = new ConcurrentHashMap<>();

  /** What a config says, or why it says nothing. */
  private record Outline(String kind, int rank, String problem) {}

  /** Held for a change and its events, so that events come in the order of the changes. */
  private final ReentrantLock changing = new ReentrantLock();

  private volatile View view;

  /**
   * A catalog, what its digests are called, and what goes to its aliases.
   *
   * @param names {@code NAME@VERSION} by digest
   * @param traffics by {@code NAME@ALIAS}
   */
  private record View(Catalog catalog, Map<String, String> names, Map<String, Traffic> traffics) {
    static View of(Catalog catalog, Map<String, Traffic> before) {
      Map<String, String> names = new HashMap<>();
      Map<String, Traffic> traffics = new HashMap<>();
      for (Entry entry : catalog.entries().values()) {
        for (Version version : entry.versions()) {
          // The first name's; of one name's the newest.
          String name = entry.name() + "@" + version.label();
          names.merge(version.digest(), name, (old, now) -> sameName(old, now) ? now : old);
        }
        for (Alias alias : entry.aliases().values()) {
          String name = entry.name() + "@" + alias.label();
          Traffic old = before.get(name);
          traffics.put(
              name,
              old != null && old.setting().equals(alias.current())
                  ? old
                  : new Traffic(alias.current()));
        }
      }
      return new View(catalog, names, traffics);
    }

    private static boolean sameName(String one, String other) {
      return one.regionMatches(0, other, 0, one.indexOf('@') + 1);
    }

    Traffic traffic(String name, String alias) {
      return Objects.requireNonNull(traffics.get(name + "@" + alias));
    }
  }

  Releases(AdapterStore store, AdapterOptions options, EventLog events) {
    this.store = store;
    this.options = options;
    this.events = events;
    this.view = View.of(store.catalog(), Map.of());
  }

  AdapterStore store() {
    return store;
  }

  Catalog catalog() {
    return view.catalog();
  }

  /** Whether {@code NAME@VERSION} stands for that digest now. */
  boolean has(String name, String digest) {
    int at = name.indexOf('@');
    Entry entry = at < 0 ? null : view.catalog().entry(name.substring(0, at));
    Version version = entry == null ? null : entry.version(name.substring(at + 1));
    return version != null && version.digest().equals(digest);
  }

  /** A reference's part before the {@code @}. */
  static String base(String reference) {
    int at = reference.indexOf('@');
    return at < 0 ? reference : reference.substring(0, at);
  }

  /** A reference's part after the {@code @}, or nothing. */
  private static String label(String reference) {
    int at = reference.indexOf('@');
    return at < 0 ? "" : reference.substring(at + 1);
  }

  private static int compareLabels(String one, String other) {
    boolean numbers = isNumber(one) && isNumber(other);
    int order = numbers ? Integer.compare(one.length(), other.length()) : 0;
    return order != 0 ? order : one.compareTo(other);
  }

  /** Whether lengths and digits order it as its value does. */
  private static boolean isNumber(String label) {
    return !label.isEmpty()
        && label.charAt(0) != '0'
        && label.chars().allMatch(c -> c >= '0' && c <= '9');
  }

  /** All versions' names of adapters from a name on, in order. */
  Stream<String> names(String from) {
    return catalog().entries().tailMap(from).values().stream()
        .flatMap(
            entry ->
                entry.versions().stream()
                    .map(version -> entry.name() + "@" + version.label())
                    .sorted(ORDER));
  }

  /**
   * What a reference points at, for those who manage it: no request is counted.
   *
   * @return null if there is nothing of that name or digest here
   * @throws AdapterException NOT_FOUND as {@link #route}; INVALID if it is an alias that stands for
   *     several
   */
  @Nullable Route point(String reference) throws AdapterException {
    Catalog.Found found = catalog().find(reference);
    if (found == null || found.name().isEmpty()) {
      // A digest, or what is missing.
      return route(reference, null);
    }
    if (found.target().shares().size() > 1) {
      throw new AdapterException(
          Reason.INVALID,
          "expected one adapter, got an alias that divides its requests among %d; name a version"
              .formatted(found.target().shares().size()));
    }
    Entry entry = Objects.requireNonNull(catalog().entry(found.name()));
    String digest = found.target().main();
    Version version = entry.version(found.label());
    String label = version == null ? label(entry, digest) : found.label();
    return new Route(found.name() + "@" + label, digest, null);
  }

  /** A version that is not bound. Reads its config, once. */
  AdapterEntry entry(Route route) {
    Outline outline = outlines.get(route.digest());
    if (outline == null) {
      outline = outline(route.digest());
      if (outline.problem().isEmpty()) {
        outlines.put(route.digest(), outline);
      }
    }
    return entry(
        route,
        new AdapterEntry(
            route.name(),
            route.digest(),
            outline.kind(),
            outline.rank(),
            0,
            0,
            0,
            AdapterEntry.Place.DISK,
            0,
            0,
            List.of(),
            AdapterEntry.Source.STORE,
            List.of(),
            false,
            outline.problem(),
            null,
            0));
  }

  /** A version of which so much is known; with what the catalog says of it. */
  AdapterEntry entry(Route route, AdapterEntry known) {
    Entry entry = catalog().entry(base(route.name()));
    Version version = entry == null ? null : entry.version(label(route.name()));
    List<String> aliases =
        entry == null
            ? List.of()
            : entry.aliases().values().stream()
                .filter(alias -> points(alias, route.digest()))
                .map(Alias::label)
                .toList();
    return new AdapterEntry(
        known.name(),
        known.digest(),
        known.kind(),
        known.rank(),
        known.modules(),
        known.parameters(),
        known.bytes(),
        known.place(),
        known.inUse(),
        known.requests(),
        known.warnings(),
        AdapterEntry.Source.STORE,
        aliases,
        known.pinned(),
        known.problem(),
        version == null ? null : version.time(),
        known.firstTokenMillis());
  }

  private static boolean points(Alias alias, String digest) {
    return alias.target().shares().stream().anyMatch(share -> share.digest().equals(digest));
  }

  private Outline outline(String digest) {
    try (Arena arena = Arena.ofConfined();
        AdapterFiles.OpenFile file = store.files(digest).open(AdapterConfig.FILE)) {
      byte[] bytes =
          file.read(AdapterConfig.LARGEST_FILE, arena).bytes().toArray(ValueLayout.JAVA_BYTE);
      AdapterConfig config = AdapterConfig.parse(bytes, options);
      return new Outline(Adapter.Kind.of(config).toString(), config.rank(), "");
    } catch (AdapterException e) {
      return new Outline("", 0, AdapterException.message(e));
    }
  }

  /**
   * Where a request goes.
   *
   * @param key whose request it is, or null
   * @return null if there is nothing of that name or digest here
   * @throws AdapterException NOT_FOUND if there is the name, but no such version or alias
   */
  @Nullable Route route(String reference, @Nullable String key) throws AdapterException {
    View now = view;
    if (reference.startsWith("sha256:")) {
      String name = now.names().get(reference);
      return name == null ? null : new Route(name, reference, null);
    }
    int at = reference.indexOf('@');
    String name = at < 0 ? reference : reference.substring(0, at);
    String label = at < 0 ? Catalog.LATEST : reference.substring(at + 1);
    Entry entry = now.catalog().entry(name);
    if (entry == null) {
      if (at < 0) {
        return null;
      }
      throw missing(name);
    }
    Version version = entry.version(label);
    if (version != null) {
      return new Route(name + "@" + label, version.digest(), null);
    }
    Alias alias = entry.alias(label);
    if (alias == null) {
      throw new AdapterException(
          Reason.NOT_FOUND,
          "expected a version or an alias of %s, got %s; it has %s"
              .formatted(quote(name), quote(label), labels(entry)));
    }
    Traffic traffic = now.traffic(name, label);
    String digest = traffic.next(name + "@" + label, key);
    return new Route(name + "@" + label(entry, digest), digest, copy(entry, label, traffic));
  }

  /** What is said of a version or alias of a name that is not in the store. */
  static AdapterException missing(String name) {
    return new AdapterException(
        Reason.NOT_FOUND,
        "expected a name in the store before the '@', got %s; publish it first"
            .formatted(quote(name)));
  }

  /** What is said of a name that is not in the store. */
  static AdapterException missingRelease(String name) {
    return new AdapterException(
        Reason.NOT_FOUND,
        "expected a name in the store, without version or alias, got %s; publish it first"
            .formatted(quote(name)));
  }

  private static String labels(Entry entry) {
    int most = 8;
    List<String> versions = entry.versions().stream().map(Version::label).toList();
    int left = Math.max(0, versions.size() - most);
    return "%s%s and %s"
        .formatted(
            left > 0 ? left + " older ones, " : "",
            String.join(", ", versions.subList(left, versions.size())),
            String.join(", ", entry.aliases().keySet()));
  }

  private @Nullable ShadowCopy copy(Entry entry, String alias, Traffic traffic) {
    Shadow shadow = traffic.setting().shadow();
    ShadowTraffic counts = traffic.shadow();
    if (shadow == null || counts == null || !traffic.copies()) {
      return null;
    }
    String candidate = entry.name() + "@" + label(entry, shadow.digest());
    String name = entry.name() + "@" + alias;
    return new ShadowCopy(candidate, counts, () -> view.traffics().get(name) == traffic);
  }

  /** The newest version of a digest. */
  static String label(Entry entry, String digest) {
    List<Version> versions = entry.versions();
    for (int i = versions.size() - 1; i >= 0; i--) {
      if (versions.get(i).digest().equals(digest)) {
        return versions.get(i).label();
      }
    }
    throw new IllegalStateException(entry.name() + " has no version of " + digest);
  }

  /**
   * A name's versions and aliases, with what goes to the aliases.
   *
   * @throws AdapterException NOT_FOUND if there is no such name
   */
  Release release(String name) throws AdapterException {
    return release(view, name);
  }

  private static Release release(View now, String name) throws AdapterException {
    Entry entry = now.catalog().entry(name);
    if (entry == null) {
      throw missingRelease(name);
    }
    List<Release.Alias> aliases = new ArrayList<>();
    for (Alias alias : entry.aliases().values()) {
      Traffic traffic = now.traffic(name, alias.label());
      ShadowTraffic shadow = traffic.shadow();
      aliases.add(
          new Release.Alias(
              name, alias, traffic.answered(), shadow == null ? null : shadow.counts()));
    }
    return new Release(entry, aliases);
  }

  /**
   * A version that is in the store.
   *
   * @param name {@code NAME@VERSION}
   * @param existed whether it was there before, with that content
   */
  record Placed(String name, String label, boolean existed) {}

  /** Publishes what a hold keeps. */
  Placed publish(AdapterStore.Hold hold, Announcement announcement) throws AdapterException {
    String name = announcement.name();
    String version = announcement.version();
    String[] label = {version};
    boolean[] existed = {false};
    change(
        catalog -> {
          label[0] = version == null ? catalog.nextVersion(name) : version;
          Entry before = catalog.entry(name);
          Catalog next = catalog.publish(name, label[0], hold.content(), Instant.now());
          existed[0] = next.revision() == catalog.revision();
          if (existed[0]) {
            // Whoever asks once more because the answer was lost must not move what others have
            // moved since.
            return catalog;
          }
          if (announcement.keepLatest() && before != null) {
            next = next.undo(name, Catalog.LATEST);
          }
          for (String alias : announcement.aliases()) {
            if (!alias.equals(Catalog.LATEST)) {
              next =
                  next.setAlias(
                      name, alias, Target.of(hold.content().digest()), null, Instant.now());
            }
          }
          return next;
        });
    return new Placed(name + "@" + label[0], label[0], existed[0]);
  }

  /**
   * Sets an alias.
   *
   * @param shares versions or digests of the name
   * @return the name as that has made it
   */
  Release setAlias(String name, String alias, List<Share> shares, @Nullable Shadow shadow)
      throws AdapterException {
    View now =
        change(
            catalog -> {
              Entry entry = catalog.entry(name);
              if (entry == null) {
                return catalog.setAlias(name, alias, Target.of(""), null, Instant.now());
              }
              List<Share> resolved = new ArrayList<>();
              for (Share share : shares) {
                resolved.add(new Share(digest(entry, share.digest()), share.weight()));
              }
              Target target;
              try {
                target = new Target(resolved);
              } catch (IllegalArgumentException e) {
                throw new AdapterException(Reason.INVALID, AdapterException.message(e), e);
              }
              return catalog.setAlias(
                  name,
                  alias,
                  target,
                  shadow == null
                      ? null
                      : new Shadow(digest(entry, shadow.digest()), shadow.fraction()),
                  Instant.now());
            });
    return release(now, name);
  }

  /** The digest of a version, given as label or digest. */
  private static String digest(Entry entry, String reference) throws AdapterException {
    Version version = entry.version(reference);
    if (version != null) {
      return version.digest();
    }
    for (Version each : entry.versions()) {
      if (each.digest().equals(reference)) {
        return reference;
      }
    }
    throw new AdapterException(
        Reason.NOT_FOUND,
        "expected a version of %s, or the digest of one, got %s; it has %s"
            .formatted(quote(entry.name()), quote(reference), labels(entry)));
  }

  Release rollback(String name, String alias) throws AdapterException {
    return release(change(catalog -> catalog.rollback(name, alias, Instant.now())), name);
  }

  void deleteAlias(String name, String alias) throws AdapterException {
    change(catalog -> catalog.deleteAlias(name, alias));
  }

  /**
   * Removes a version.
   *
   * @param force even if aliases point to it: it is taken out of them
   * @return what it stood for, and the aliases that pointed to it
   */
  Deleted delete(String name, String version, boolean force) throws AdapterException {
    List<String> aliases = new ArrayList<>();
    String[] digest = {""};
    change(
        catalog -> {
          Entry entry = catalog.entry(name);
          Version known = entry == null ? null : entry.version(version);
          if (entry == null || known == null) {
            // Says what is missing.
            return catalog.deleteVersion(name, version);
          }
          digest[0] = known.digest();
          aliases.clear();
          boolean elsewhere =
              entry.versions().stream()
                  .anyMatch(v -> !v.equals(known) && v.digest().equals(known.digest()));
          Catalog next = catalog;
          for (Alias alias : entry.aliases().values()) {
            if (!elsewhere && uses(alias.current(), known.digest())) {
              aliases.add(alias.label());
              if (force && !alias.label().equals(Catalog.LATEST)) {
                next = without(next, entry, alias, known.digest());
              }
            }
          }
          if (!force && !aliases.isEmpty()) {
            throw new AdapterException(
                Reason.IN_USE,
                "version %s of %s: expected that no alias points at it, got %s; point elsewhere"
                        .formatted(quote(version), quote(name), String.join(", ", aliases))
                    + " first, or force it");
          }
          return next.deleteVersion(name, version);
        });
    return new Deleted(digest[0], List.copyOf(aliases));
  }

  private static boolean uses(Setting setting, String digest) {
    Shadow shadow = setting.shadow();
    return (shadow != null && shadow.digest().equals(digest))
        || setting.target().shares().stream().anyMatch(share -> share.digest().equals(digest));
  }

  private static Catalog without(Catalog catalog, Entry entry, Alias alias, String digest)
      throws AdapterException {
    List<Share> left =
        alias.target().shares().stream().filter(s -> !s.digest().equals(digest)).toList();
    if (left.isEmpty()) {
      return catalog.deleteAlias(entry.name(), alias.label());
    }
    Shadow shadow = alias.shadow();
    return catalog.setAlias(
        entry.name(),
        alias.label(),
        new Target(left),
        shadow == null || shadow.digest().equals(digest) ? null : shadow,
        Instant.now());
  }

  /**
   * Changes the catalog, then says what changed.
   *
   * @return what requests see from then on
   */
  private View change(AdapterStore.Edit edit) throws AdapterException {
    changing.lock();
    try {
      try {
        store.update(edit);
      } finally {
        // Also when it failed: it may have been made, only not for certain outlive a loss of power.
        see(store.catalog());
      }
      return view;
    } finally {
      changing.unlock();
    }
  }

  private void see(Catalog now) {
    View before = view;
    if (now.revision() != before.catalog().revision()) {
      view = View.of(now, before.traffics());
      outlines.keySet().retainAll(now.contents().keySet());
      tell(before.catalog(), now);
    }
  }

  private void tell(Catalog before, Catalog now) {
    for (Entry entry : now.entries().values()) {
      Entry old = before.entry(entry.name());
      if (entry.equals(old)) {
        continue;
      }
      for (Version version : entry.versions()) {
        Version known = old == null ? null : old.version(version.label());
        if (known == null || !known.digest().equals(version.digest())) {
          events.append(Kind.PUBLISHED, entry.name() + "@" + version.label(), version.digest());
        }
      }
      for (Alias alias : entry.aliases().values()) {
        Alias known = old == null ? null : old.alias(alias.label());
        if (known == null || !known.current().equals(alias.current())) {
          events.append(
              Kind.ALIAS_SET,
              entry.name(),
              alias.target().main(),
              alias.label(),
              describe(entry, alias.current()));
        }
      }
    }
    for (Entry old : before.entries().values()) {
      Entry entry = now.entry(old.name());
      if (old.equals(entry)) {
        continue;
      }
      for (Alias alias : old.aliases().values()) {
        if (entry == null || entry.alias(alias.label()) == null) {
          events.append(Kind.ALIAS_DELETED, old.name(), alias.target().main(), alias.label(), "");
        }
      }
      for (Version version : old.versions()) {
        if (entry == null || entry.version(version.label()) == null) {
          events.append(Kind.DELETED, old.name() + "@" + version.label(), version.digest());
        }
      }
    }
  }

  /** A setting for people. */
  static String describe(Entry entry, Setting setting) {
    List<Share> shares = setting.target().shares();
    String target =
        shares.size() == 1
            ? label(entry, shares.getFirst().digest())
            : shares.stream()
                .map(share -> label(entry, share.digest()) + "=" + share.weight())
                .collect(Collectors.joining(" "));
    Shadow shadow = setting.shadow();
    return shadow == null
        ? target
        : String.format(
            Locale.ROOT,
            "%s, shadow %s=%s",
            target,
            label(entry, shadow.digest()),
            (float) shadow.fraction());
  }
}
