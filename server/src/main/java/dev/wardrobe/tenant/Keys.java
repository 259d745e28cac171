package dev.wardrobe.tenant;

import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.security.MessageDigest;
import java.time.Clock;
import java.time.Instant;
import java.util.Collection;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.jspecify.annotations.Nullable;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * The keys that a server knows: those of a file, read again when it changes. Safe for use by all
 * threads; only {@link #refresh} waits.
 *
 * <p>A new file counts whole or not at all: one that cannot be read leaves the keys as they were,
 * and the log says so.
 *
 * <p>To try a key costs the server one hash of at most {@value #LONGEST} characters, whatever is
 * shown and however many keys there are, and a key is 256 random bits: there is nothing to guess,
 * and so no account is locked, which would let anyone lock others out. A key is looked up by the
 * first half of its hash, in which a caller learns nothing from time: to steer it would be to
 * invert SHA-256. The whole is compared in constant time.
 */
public final class Keys {
  private static final Logger log = LoggerFactory.getLogger(Keys.class);

  /** Longest text that is looked at as a key. */
  static final int LONGEST = 256;

  private static final int HANDLE = 32;

  private final KeyFile file;
  private final Clock clock;
  private volatile Ring ring;

  // Guarded by this.
  private String stamp;
  private @Nullable String problem;

  /** What the file says. */
  private record Ring(
      Map<String, Grant> byHash, Map<String, Grant> byCertificate, Map<String, Grant> byId) {
    static final Ring EMPTY = new Ring(Map.of(), Map.of(), Map.of());

    /** With what is as it was before, as it is known to those who have shown it. */
    static Ring of(List<Grant> grants, Ring before) {
      Map<String, Grant> byHash = new HashMap<>();
      Map<String, Grant> byCertificate = new HashMap<>();
      Map<String, Grant> byId = new HashMap<>();
      for (Grant read : grants) {
        Grant known = before.byId.get(read.id());
        Grant grant = known != null && known.toJson().equals(read.toJson()) ? known : read;
        byId.put(grant.id(), grant);
        String hash = grant.hash();
        String certificate = grant.certificate();
        if (hash != null) {
          byHash.put(hash.substring(0, HANDLE), grant);
        } else if (certificate != null) {
          byCertificate.put(certificate, grant);
        }
      }
      return new Ring(Map.copyOf(byHash), Map.copyOf(byCertificate), Map.copyOf(byId));
    }

    int size() {
      return byHash.size() + byCertificate.size();
    }
  }

  /** What became of what a caller showed. */
  public sealed interface Shown {
    /** It is good. */
    record Known(Grant grant) implements Shown {}

    /**
     * It is not.
     *
     * @param why fit for the caller and for logs
     */
    record Refused(String why) implements Shown {}
  }

  private Keys(KeyFile file, Clock clock, List<Grant> grants, String stamp) {
    this.file = file;
    this.clock = clock;
    this.ring = Ring.of(grants, Ring.EMPTY);
    this.stamp = stamp;
  }

  /**
   * The keys of a file.
   *
   * @throws KeyFileException if it cannot be read, or others may write to it
   */
  public static Keys open(Path path) throws KeyFileException {
    return open(path, Clock.systemUTC());
  }

  static Keys open(Path path, Clock clock) throws KeyFileException {
    KeyFile file = new KeyFile(path);
    List<Grant> grants;
    String stamp;
    try {
      stamp = file.stamp();
      grants = read(file);
    } catch (IOException e) {
      // For what it says about the file.
      grants = file.read();
      stamp = "";
    }
    if (grants.isEmpty()) {
      log.warn("{} holds no key yet: until it does, every call is refused", file);
    }
    return new Keys(file, clock, grants, stamp);
  }

  private static List<Grant> read(KeyFile file) throws KeyFileException {
    String doubt = file.checkMode();
    if (doubt != null) {
      log.warn("{}", doubt);
    }
    return file.read();
  }

  /** Reads the file again if it was changed. */
  public synchronized void refresh() {
    String now;
    try {
      now = file.stamp();
    } catch (IOException e) {
      keepOld(file + ": it is not there, or cannot be read");
      return;
    }
    if (now.equals(stamp)) {
      return;
    }
    try {
      ring = Ring.of(read(file), ring);
      stamp = now;
      problem = null;
      log.info("{} was read again: {} keys", file, ring.size());
    } catch (KeyFileException e) {
      keepOld(String.valueOf(e.getMessage()));
    }
  }

  /** Says so, once for each problem. */
  private void keepOld(String why) {
    if (!why.equals(problem)) {
      problem = why;
      log.error("the keys stay as they were, since their file cannot be read anew: {}", why);
    }
  }

  /** How many keys and certificates it knows. */
  public int size() {
    return ring.size();
  }

  /** What a key is worth now. */
  public Shown show(String key) {
    if (key.length() > LONGEST || !ApiKey.isWellFormed(key)) {
      return new Shown.Refused(
          "expected a key of this server, which begins with wardrobe_, got something else, or a"
              + " part of one; copy it whole");
    }
    String hash = ApiKey.hash(key);
    Grant grant = ring.byHash().get(hash.substring(0, HANDLE));
    if (grant == null || !equal(hash, String.valueOf(grant.hash()))) {
      return new Shown.Refused(
          "expected a key of this server, got one that it does not know; it may have been revoked");
    }
    return current(grant);
  }

  private static boolean equal(String one, String other) {
    return MessageDigest.isEqual(
        one.getBytes(StandardCharsets.US_ASCII), other.getBytes(StandardCharsets.US_ASCII));
  }

  private Shown current(Grant grant) {
    Instant expires = grant.expires();
    return expires != null && grant.expired(clock.instant())
        ? new Shown.Refused(
            "expected a key that is valid, got one that expired at %s; ask for a new one"
                .formatted(expires))
        : new Shown.Known(grant);
  }

  /**
   * Why a caller that was let in before would not be now; null if it would.
   *
   * @param caller one that was {@linkplain #show shown}
   */
  public @Nullable String refusal(Caller caller) {
    Grant grant = ring.byId().get(caller.id());
    if (grant == null) {
      return "expected a key of this server, got one that was revoked; ask for a new one";
    }
    if (grant.caller() != caller) {
      return "expected a key as it was when this began, got one that was changed; ask again with"
          + " it";
    }
    return current(grant) instanceof Shown.Refused refused ? refused.why() : null;
  }

  /**
   * What a client's certificate, which was verified, is worth now; null if none of its names is
   * known.
   *
   * @param names its common name, and its DNS, e-mail and URI names
   */
  public @Nullable Shown show(Collection<String> names) {
    for (String name : names) {
      Grant grant = ring.byCertificate().get(name);
      if (grant != null) {
        return current(grant);
      }
    }
    return null;
  }
}
