package dev.wardrobe.tenant;

import dev.wardrobe.adapter.AdapterEntry;
import dev.wardrobe.adapter.AdapterException;
import dev.wardrobe.adapter.AdapterException.Reason;
import dev.wardrobe.adapter.AdapterPage;
import dev.wardrobe.adapter.AdapterRegistry;
import dev.wardrobe.adapter.Announcement;
import dev.wardrobe.adapter.Catalog;
import dev.wardrobe.adapter.EventLog;
import dev.wardrobe.adapter.Lease;
import dev.wardrobe.adapter.Publication;
import dev.wardrobe.adapter.Release;
import dev.wardrobe.adapter.ScanResult;
import dev.wardrobe.adapter.SentFile;
import dev.wardrobe.adapter.Unloaded;
import java.util.List;
import java.util.OptionalLong;
import java.util.concurrent.CompletableFuture;
import org.jspecify.annotations.Nullable;

/**
 * The adapters of a registry that there are for one caller. To it the others are not there: what it
 * does not see is refused by its name alone, before anyone looks whether it exists, in the words
 * for what does not. A digest is that of a name that the caller sees, or of nothing.
 *
 * <p>Whoever answers callers asks this, not the registry, whose methods these are.
 */
public final class VisibleAdapters {
  private static final String DIGEST = "sha256:";

  private final AdapterRegistry registry;
  private final Caller caller;

  public VisibleAdapters(AdapterRegistry registry, Caller caller) {
    this.registry = registry;
    this.caller = caller;
  }

  /** What a reference is called that the caller may use; null if there is no such thing for it. */
  private @Nullable String seen(String reference) {
    if (caller.seesAll()) {
      return reference;
    }
    if (reference.startsWith(DIGEST)) {
      for (String name : registry.names(reference)) {
        if (caller.sees(name)) {
          return name;
        }
      }
      return null;
    }
    return caller.sees(reference) ? reference : null;
  }

  private String managed(String reference) throws AdapterException {
    String name = seen(reference);
    if (name == null) {
      throw registry.unknown(reference);
    }
    return name;
  }

  private void checkReleased(String name) throws AdapterException {
    if (!caller.sees(name)) {
      throw registry.unreleased(name);
    }
  }

  /** Refuses to give a name to something that is not to have it. */
  private void checkMayName(String name) throws AdapterException {
    if (!caller.sees(name)) {
      throw new AdapterException(
          Reason.REFUSED_PATH,
          "name: expected one that this key is for (%s), got %s; choose another, or use another key"
              .formatted(caller.describeAdapters(), Quoted.of(name)));
    }
  }

  private void checkMayRead(String path) throws AdapterException {
    if (!caller.seesPath(path)) {
      throw registry.absent(path);
    }
  }

  /** As {@link AdapterRegistry#lease(String, String)}. */
  public CompletableFuture<Lease> lease(String reference, @Nullable String key) {
    String name = seen(reference);
    if (name == null) {
      return CompletableFuture.failedFuture(registry.absent(reference));
    }
    CompletableFuture<Lease> lease = registry.lease(name, key);
    if (name.equals(reference)) {
      return lease;
    }
    CompletableFuture<Lease> checked = new CompletableFuture<>();
    CompletableFuture<?> _ =
        lease.whenComplete(
            (got, failure) -> {
              if (got == null) {
                checked.completeExceptionally(
                    failure == null ? registry.absent(reference) : failure);
              } else if (!got.digest().equals(reference)) {
                // The name was given to something else meanwhile.
                got.close();
                checked.completeExceptionally(registry.absent(reference));
              } else if (!checked.complete(got)) {
                got.close();
              }
            });
    CompletableFuture<?> _ =
        checked.whenComplete(
            (_, _) -> {
              if (checked.isCancelled()) {
                lease.cancel(false);
              }
            });
    return checked;
  }

  /** As {@link AdapterRegistry#load}. */
  public CompletableFuture<AdapterEntry> load(String name, @Nullable String path) {
    try {
      if (path != null) {
        checkMayName(name);
        checkMayRead(path);
      }
    } catch (AdapterException e) {
      return CompletableFuture.failedFuture(e);
    }
    String seen = seen(name);
    return seen == null
        ? CompletableFuture.failedFuture(registry.absent(name))
        : registry.load(seen, path);
  }

  /** As {@link AdapterRegistry#unload}. */
  public Unloaded unload(String reference) throws AdapterException {
    return registry.unload(managed(reference));
  }

  /** As {@link AdapterRegistry#list}. */
  public List<AdapterEntry> list() {
    return registry.list().stream().filter(entry -> caller.sees(entry.name())).toList();
  }

  /** As {@link AdapterRegistry#page(String, int)}. */
  public AdapterPage page(@Nullable String after, int most) {
    return registry.page(after, most, caller::sees);
  }

  /** As {@link AdapterRegistry#get}. */
  public AdapterEntry get(String reference) throws AdapterException {
    return registry.get(managed(reference));
  }

  /** As {@link AdapterRegistry#scan}. */
  public CompletableFuture<ScanResult> scan() {
    return registry.scan();
  }

  /** As {@link AdapterRegistry#pin}. */
  public CompletableFuture<AdapterEntry> pin(String reference) {
    try {
      return registry.pin(managed(reference));
    } catch (AdapterException e) {
      return CompletableFuture.failedFuture(e);
    }
  }

  /** As {@link AdapterRegistry#unpin}. */
  public AdapterEntry unpin(String reference) throws AdapterException {
    return registry.unpin(managed(reference));
  }

  /** As {@link AdapterRegistry#publish(Announcement, long, long)}. */
  public Publication publish(Announcement announcement, long configBytes, long weightBytes)
      throws AdapterException {
    checkMayName(announcement.name());
    return registry.publish(announcement, configBytes, weightBytes);
  }

  /** As {@link AdapterRegistry#publishFrom}. */
  public Publication publishFrom(Announcement announcement, String path) throws AdapterException {
    checkMayName(announcement.name());
    checkMayRead(path);
    return registry.publishFrom(announcement, path);
  }

  /** As {@link AdapterRegistry#checkPublishable}. */
  public void checkPublishable(Announcement announcement) throws AdapterException {
    checkMayName(announcement.name());
    registry.checkPublishable(announcement);
  }

  /** As {@link AdapterRegistry#publishSent}. */
  public Publication publishSent(Announcement announcement, List<SentFile> files)
      throws AdapterException {
    checkMayName(announcement.name());
    return registry.publishSent(announcement, files);
  }

  /** As {@link AdapterRegistry#release}. */
  public Release release(String name) throws AdapterException {
    checkReleased(name);
    return registry.release(name);
  }

  /** As {@link AdapterRegistry#versions}, of a release of this caller's. */
  public List<AdapterEntry> versions(Release release) {
    return registry.versions(release);
  }

  /** As {@link AdapterRegistry#setAlias}. */
  public Release setAlias(
      String name, String alias, List<Catalog.Share> shares, Catalog.@Nullable Shadow shadow)
      throws AdapterException {
    checkReleased(name);
    return registry.setAlias(name, alias, shares, shadow);
  }

  /** As {@link AdapterRegistry#rollback}. */
  public Release rollback(String name, String alias) throws AdapterException {
    checkReleased(name);
    return registry.rollback(name, alias);
  }

  /** As {@link AdapterRegistry#deleteAlias}. */
  public void deleteAlias(String name, String alias) throws AdapterException {
    checkReleased(name);
    registry.deleteAlias(name, alias);
  }

  /** As {@link AdapterRegistry#deleteVersion}. */
  public Unloaded deleteVersion(String name, String version, boolean force)
      throws AdapterException {
    checkReleased(name);
    return registry.deleteVersion(name, version, force);
  }

  /** As {@link EventLog#watch}, of the caller's adapters; others' events are passed over. */
  public EventLog.Watch watch(OptionalLong after, Runnable wake) throws AdapterException {
    return registry
        .events()
        .watch(
            after,
            wake,
            event -> event.name().isEmpty() ? caller.seesAll() : caller.sees(event.name()));
  }
}
