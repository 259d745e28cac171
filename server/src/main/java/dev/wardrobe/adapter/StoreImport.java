package dev.wardrobe.adapter;

import static dev.wardrobe.adapter.AdapterException.quote;

import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.wardrobe.adapter.AdapterException.Reason;
import dev.wardrobe.model.Model;
import dev.wardrobe.model.Progress;
import java.nio.file.Path;
import java.time.Instant;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Callable;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.function.Consumer;
import org.jspecify.annotations.Nullable;

/**
 * Brings adapters from elsewhere into a store: PEFT directories, or what another OCI layout has.
 *
 * <p>Several are read at once, and their names change together at the end, in one commit for a few
 * hundred of them.
 */
public final class StoreImport {
  /** So many wait for the disk at once. */
  private static final int AT_ONCE = 8;

  private static final int COMMITTED_AT_ONCE = 256;

  private final AdapterStore store;
  private final AdapterOptions options;
  private final @Nullable Model base;
  private final Progress progress;

  /**
   * A PEFT directory, and what it is to be called.
   *
   * @param version null: the next number, or what already has this content
   * @param aliases to point to it
   */
  public record Source(
      String name, @Nullable String version, List<String> aliases, Path directory) {
    public Source {
      aliases = List.copyOf(aliases);
    }
  }

  /**
   * What became of an adapter.
   *
   * @param name as it is now called, {@code NAME@VERSION}; or what was asked for
   * @param content null if it was refused
   * @param notes warnings, or why it was refused
   */
  public record Outcome(String name, @Nullable Content content, List<String> notes) {
    public Outcome {
      notes = List.copyOf(notes);
    }
  }

  /** One that was read and found good. */
  private record Ready(
      Source source, AdapterStore.@Nullable Hold hold, List<String> notes, Instant time) {}

  /**
   * An import.
   *
   * @param base what adapters have to fit; null: that is left to the server that loads them
   */
  public StoreImport(AdapterStore store, AdapterOptions options, @Nullable Model base) {
    this(store, options, base, Progress.NONE);
  }

  private StoreImport(
      AdapterStore store, AdapterOptions options, @Nullable Model base, Progress progress) {
    this.store = store;
    this.options = options;
    this.base = base;
    this.progress = progress;
  }

  /** The same import, which says how far it is with reading. */
  public StoreImport telling(Progress told) {
    return new StoreImport(store, options, base, told);
  }

  /**
   * Takes in all that can be used, and says of each what became of it. Those that are refused keep
   * none of the others away.
   *
   * @throws AdapterException if the store cannot be written
   */
  public void directories(List<Source> sources, Consumer<Outcome> told) throws AdapterException {
    run(sources.stream().map(source -> (Callable<Ready>) () -> read(source)).toList(), told);
  }

  private void run(List<Callable<Ready>> readers, Consumer<Outcome> told) throws AdapterException {
    try (ExecutorService threads =
        Executors.newFixedThreadPool(
            AT_ONCE, Thread.ofPlatform().daemon().name("wardrobe-import-", 0).factory())) {
      for (int from = 0; from < readers.size(); from += COMMITTED_AT_ONCE) {
        List<Callable<Ready>> some =
            readers.subList(from, Math.min(readers.size(), from + COMMITTED_AT_ONCE));
        List<Future<Ready>> reading = some.stream().map(reader -> threads.submit(reader)).toList();
        List<Ready> ready = new ArrayList<>();
        try {
          for (Future<Ready> each : reading) {
            Ready one = each.get();
            ready.add(one);
            progress.at(from + ready.size(), readers.size(), one.source().name());
          }
          commit(ready, told);
        } catch (InterruptedException e) {
          Thread.currentThread().interrupt();
          throw new AdapterException(Reason.IO, "the import was interrupted", e);
        } catch (ExecutionException e) {
          throw new AdapterException(
              Reason.IO, "reading failed unexpectedly (%s); please report it".formatted(e), e);
        } finally {
          for (Future<Ready> each : reading) {
            release(each);
          }
        }
      }
    }
  }

  private static void release(Future<Ready> reading) {
    reading.cancel(false);
    if (reading.state() == Future.State.SUCCESS) {
      AdapterStore.Hold hold = reading.resultNow().hold();
      if (hold != null) {
        hold.close();
      }
    }
  }

  private Ready read(Source source) {
    AdapterStore.Hold hold = null;
    try {
      Catalog.checkName(source.name());
      AdapterName.checkEnd(source.name());
      AdapterName.checkNotBase(source.name(), base == null ? "" : base.name());
      if (source.version() != null) {
        Catalog.checkVersion(source.version());
      }
      for (String alias : source.aliases()) {
        Catalog.checkAlias(alias);
      }
      hold = store.add(source.directory());
      List<String> notes = check(hold.content().digest());
      return new Ready(source, hold, notes, Instant.now());
    } catch (AdapterException e) {
      if (hold != null) {
        hold.close();
      }
      return new Ready(source, null, List.of(AdapterException.message(e)), Instant.now());
    }
  }

  /** Warnings about what is in the store now. */
  private List<String> check(String digest) throws AdapterException {
    if (base == null) {
      return AdapterSummary.read(store.files(digest), options).warnings();
    }
    try (Adapter adapter = Adapter.read(store.files(digest), base, options)) {
      return adapter.warnings();
    }
  }

  private void commit(List<Ready> all, Consumer<Outcome> told) throws AdapterException {
    List<Outcome> outcomes = new ArrayList<>();
    store.update(
        current -> {
          Catalog catalog = current;
          for (Ready ready : all) {
            AdapterStore.Hold hold = ready.hold();
            if (hold == null) {
              outcomes.add(new Outcome(ready.source().name(), null, ready.notes()));
              continue;
            }
            try {
              Source source = ready.source();
              String version = version(catalog, source, hold.content());
              catalog = publish(catalog, source, version, hold.content(), ready.time());
              outcomes.add(
                  new Outcome(source.name() + "@" + version, hold.content(), ready.notes()));
            } catch (AdapterException e) {
              outcomes.add(
                  new Outcome(ready.source().name(), null, List.of(AdapterException.message(e))));
            }
          }
          return catalog;
        });
    outcomes.forEach(told);
  }

  private static String version(Catalog catalog, Source source, Content content) {
    if (source.version() != null) {
      return source.version();
    }
    Catalog.Entry entry = catalog.entry(source.name());
    if (entry != null) {
      for (Catalog.Version version : entry.versions().reversed()) {
        if (version.content().equals(content)) {
          return version.label();
        }
      }
    }
    return catalog.nextVersion(source.name());
  }

  private static Catalog publish(
      Catalog catalog, Source source, String version, Content content, Instant time)
      throws AdapterException {
    Catalog next = catalog.publish(source.name(), version, content, time);
    for (String alias : source.aliases()) {
      next = next.setAlias(source.name(), alias, Catalog.Target.of(content.digest()), null, time);
    }
    return next;
  }

  /**
   * Takes in what another layout calls {@code NAME}, {@code NAME@VERSION} or {@code NAME@ALIAS},
   * and what a store of ours says of its names. It may be this store: then it is what other tools
   * have copied into it.
   *
   * @throws AdapterException if the layout cannot be read, or the store cannot be written
   */
  public void layout(Path directory, Consumer<Outcome> told) throws AdapterException {
    try (AdapterStore other = AdapterStore.openToRead(directory, store.options())) {
      List<Callable<Ready>> readers = new ArrayList<>();
      for (Catalog.Entry entry : other.catalog().entries().values()) {
        for (Catalog.Version version : entry.versions()) {
          readers.add(
              () ->
                  copy(
                      other,
                      new Source(entry.name(), version.label(), List.of(), directory),
                      version.digest(),
                      version.time()));
        }
      }
      tags(other)
          .forEach((tag, digest) -> readers.add(() -> copy(other, tag, digest, Instant.now())));
      run(readers, told);
      if (!other.directory().equals(store.directory())) {
        store.update(catalog -> aliases(catalog, other.catalog(), told));
      }
    }
  }

  /**
   * Other tools' tags that could be ours. A label that no version could have is left to whoever
   * sets aliases; a word is an alias where the same content also has a number.
   */
  private static Map<Source, String> tags(AdapterStore other) {
    Map<String, String> numbered = new LinkedHashMap<>();
    Map<Source, String> tags = new LinkedHashMap<>();
    List<ObjectNode> all = other.otherTags();
    for (boolean numbers : new boolean[] {true, false}) {
      for (ObjectNode tag : all) {
        String reference = tag.path("annotations").path(StoreIndex.REF_NAME).asText("");
        String digest = tag.path("digest").asText("");
        int at = reference.indexOf('@');
        String name = at < 0 ? reference : reference.substring(0, at);
        String label = at < 0 ? Catalog.LATEST : reference.substring(at + 1);
        boolean number = !label.isEmpty() && label.charAt(0) <= '9';
        if (name.isEmpty() || number != numbers) {
          continue;
        }
        if (number) {
          numbered.put(name + "@" + digest, label);
          tags.put(new Source(name, label, List.of(), other.directory()), digest);
        } else {
          String version = numbered.get(name + "@" + digest);
          boolean latest = label.equals(Catalog.LATEST);
          boolean alias = latest || version != null;
          tags.put(
              new Source(
                  name,
                  alias ? version : label,
                  alias && !latest ? List.of(label) : List.of(),
                  other.directory()),
              digest);
        }
      }
    }
    return tags;
  }

  private Ready copy(AdapterStore other, Source source, String digest, Instant time) {
    AdapterStore.Hold hold = null;
    try {
      hold =
          other.directory().equals(store.directory())
                  && store.catalog().contents().containsKey(digest)
              ? store.hold(digest)
              : store.add(other.files(digest), digest);
      return new Ready(source, hold, check(digest), time);
    } catch (AdapterException e) {
      if (hold != null) {
        hold.close();
      }
      return new Ready(source, null, List.of(AdapterException.message(e)), time);
    }
  }

  /**
   * Sets aliases as another store has them, where their versions came along, and gives no number
   * again that it has given.
   */
  private static Catalog aliases(Catalog catalog, Catalog other, Consumer<Outcome> told) {
    Catalog next = catalog;
    for (Catalog.Entry entry : other.entries().values()) {
      next = next.numberFrom(entry.name(), entry.lastNumber());
      for (Catalog.Alias alias : entry.aliases().values()) {
        try {
          next =
              next.setAlias(
                  entry.name(),
                  alias.label(),
                  alias.target(),
                  alias.shadow(),
                  alias.current().time());
        } catch (AdapterException e) {
          told.accept(
              new Outcome(
                  entry.name() + "@" + alias.label(),
                  null,
                  List.of("the alias was not set: " + quote(AdapterException.message(e)))));
        }
      }
    }
    return next;
  }
}
