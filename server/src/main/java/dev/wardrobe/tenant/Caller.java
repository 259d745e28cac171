package dev.wardrobe.tenant;

import java.util.List;
import java.util.Set;
import org.jspecify.annotations.Nullable;

/** Who asks: whose requests these are, what they may do, and which adapters there are for them. */
public final class Caller {
  /** Whoever reaches a server that asks for no keys. */
  public static final Caller ANYONE = new Caller("", null, Set.of(Scope.values()), null);

  /** Whoever shows nothing to a server that asks for keys: may do and sees nothing. */
  public static final Caller NOBODY = new Caller("", "", Set.of(), List.of());

  private final String id;
  private final @Nullable String tenant;
  private final Set<Scope> scopes;
  private final @Nullable List<NamePattern> adapters;

  /**
   * A caller.
   *
   * @param id of the key or certificate that was shown; fit for logs
   * @param tenant whose requests these are, or null if a request may say so itself
   * @param adapters what there is for it; null: everything
   */
  Caller(
      String id, @Nullable String tenant, Set<Scope> scopes, @Nullable List<NamePattern> adapters) {
    this.id = id;
    this.tenant = tenant;
    this.scopes = Set.copyOf(scopes);
    boolean all =
        adapters == null
            || this.scopes.contains(Scope.ADMIN)
            || adapters.stream().anyMatch(pattern -> pattern.text().equals("*"));
    this.adapters = all ? null : List.copyOf(adapters);
  }

  /**
   * Whoever shows a certificate to a server that asks for one of a certain authority, and has no
   * keys: may do everything.
   *
   * @param name the certificate's common name
   */
  public static Caller certified(String name) {
    return new Caller(name, name, Set.of(Scope.values()), null);
  }

  /** Of the key or certificate that was shown; empty if none was asked for. Fit for logs. */
  public String id() {
    return id;
  }

  /** Whose requests these are; null if a request may say so itself. */
  public @Nullable String tenant() {
    return tenant;
  }

  public Set<Scope> scopes() {
    return scopes;
  }

  public boolean may(Scope scope) {
    return scopes.contains(scope) || scopes.contains(Scope.ADMIN);
  }

  /** Whether there is nothing that it does not see. */
  public boolean seesAll() {
    return adapters == null;
  }

  /**
   * Whether there is an adapter of this name for it, if there is one at all.
   *
   * @param name with or without a version or alias; not a digest
   */
  public boolean sees(String name) {
    if (adapters == null) {
      return true;
    }
    int at = name.indexOf('@');
    String plain = at < 0 ? name : name.substring(0, at);
    return adapters.stream().anyMatch(pattern -> pattern.matches(plain));
  }

  /** Whether a directory of this path under a root is there for it, if there is one at all. */
  boolean seesPath(String path) {
    return adapters == null || adapters.stream().anyMatch(pattern -> pattern.matches(path));
  }

  /** Its names of adapters, for people. */
  String describeAdapters() {
    return adapters == null
        ? "*"
        : String.join(", ", adapters.stream().map(NamePattern::text).toList());
  }

  @Override
  public String toString() {
    return id.isEmpty() ? "anyone" : id;
  }
}
