package dev.wardrobe.tenant;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.JsonNodeFactory;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.time.Instant;
import java.time.format.DateTimeParseException;
import java.util.ArrayList;
import java.util.Collection;
import java.util.EnumSet;
import java.util.List;
import java.util.Locale;
import java.util.Set;
import java.util.regex.Pattern;
import java.util.stream.Collectors;
import org.jspecify.annotations.Nullable;

/**
 * One line of a file of keys: who shows this key, or this certificate, is this caller.
 *
 * @param id what it is called in logs and to revoke it; secret to nobody
 * @param caller who it is
 * @param adapters names of adapters that the caller sees, as they were written
 * @param hash the key's SHA-256 in hexadecimal digits, or null
 * @param certificate the common name or a DNS, e-mail or URI name of a client's certificate, or
 *     null
 * @param created when it was made, or null
 * @param expires from when on it is worth nothing, or null for never
 */
public record Grant(
    String id,
    Caller caller,
    List<String> adapters,
    @Nullable String hash,
    @Nullable String certificate,
    @Nullable Instant created,
    @Nullable Instant expires) {
  private static final Pattern ID = Pattern.compile("[A-Za-z0-9][A-Za-z0-9._-]{0,63}");
  private static final Pattern TENANT = Pattern.compile("[\\p{L}\\p{N} ._@:/+-]{1,128}");
  private static final Pattern HASH = Pattern.compile("[0-9a-f]{64}");
  private static final int LONGEST_NAME = 256;
  private static final int MOST_PATTERNS = 256;
  private static final Set<String> FIELDS =
      Set.of("id", "tenant", "scopes", "adapters", "sha256", "certificate", "created", "expires");

  /**
   * A grant for a key.
   *
   * @param expires from when on it is worth nothing; null: never
   * @throws IllegalArgumentException saying what is wrong
   */
  public static Grant ofKey(
      String key,
      String id,
      String tenant,
      Collection<Scope> scopes,
      List<String> adapters,
      @Nullable Instant expires) {
    return of(id, tenant, scopes, adapters, ApiKey.hash(key), null, Instant.now(), expires);
  }

  /**
   * A grant for a certificate; see {@link #ofKey}.
   *
   * @param name its common name, or one of its DNS, e-mail or URI names
   */
  public static Grant ofCertificate(
      String name,
      String id,
      String tenant,
      Collection<Scope> scopes,
      List<String> adapters,
      @Nullable Instant expires) {
    return of(id, tenant, scopes, adapters, null, name, Instant.now(), expires);
  }

  private static Grant of(
      String id,
      String tenant,
      Collection<Scope> scopes,
      List<String> adapters,
      @Nullable String hash,
      @Nullable String certificate,
      @Nullable Instant created,
      @Nullable Instant expires) {
    check(
        ID.matcher(id).matches(),
        "id: expected 1 to 64 letters, digits and ._- inside, got " + Quoted.of(id));
    check(
        TENANT.matcher(tenant).matches() && !tenant.startsWith("wardrobe:"),
        "tenant: expected 1 to 128 letters, digits, spaces and ._@:/+-, not wardrobe: at its"
            + " beginning, got "
            + Quoted.of(tenant));
    check(
        !scopes.isEmpty(), "scopes: expected at least one of inference, adapters, admin, got none");
    check(
        !adapters.isEmpty() && adapters.size() <= MOST_PATTERNS,
        "adapters: expected 1 to %d names, such as acme/*, or * for all, got %d"
            .formatted(MOST_PATTERNS, adapters.size()));
    check(
        certificate == null || (!certificate.isEmpty() && certificate.length() <= LONGEST_NAME),
        "certificate: expected a name of 1 to %d characters".formatted(LONGEST_NAME));
    List<NamePattern> patterns = adapters.stream().map(NamePattern::new).toList();
    return new Grant(
        id,
        new Caller(id, tenant, EnumSet.copyOf(scopes), patterns),
        List.copyOf(adapters),
        hash,
        certificate,
        created,
        expires);
  }

  private static void check(boolean good, String message) {
    if (!good) {
      throw new IllegalArgumentException(message);
    }
  }

  /**
   * A line's.
   *
   * @throws IllegalArgumentException saying what is wrong with it
   */
  static Grant of(JsonNode line) {
    check(line.isObject(), "expected a JSON object, got something else");
    for (var field : line.properties()) {
      check(
          FIELDS.contains(field.getKey()),
          "expected the fields %s, got %s"
              .formatted(
                  String.join(", ", FIELDS.stream().sorted().toList()), Quoted.of(field.getKey())));
    }
    String hash = line.has("sha256") ? text(line, "sha256") : null;
    String certificate = line.has("certificate") ? text(line, "certificate") : null;
    check(
        (hash == null) != (certificate == null),
        "expected either sha256 or certificate, got " + (hash == null ? "neither" : "both"));
    check(
        hash == null || HASH.matcher(hash).matches(),
        "sha256: expected 64 lower-case hexadecimal digits, got something else; wardrobe keys"
            + " create writes them");
    List<Scope> scopes = new ArrayList<>();
    for (String scope : texts(line, "scopes")) {
      scopes.add(Scope.of(scope));
    }
    return of(
        text(line, "id"),
        text(line, "tenant"),
        scopes,
        texts(line, "adapters"),
        hash,
        certificate,
        time(line, "created"),
        time(line, "expires"));
  }

  private static String text(JsonNode line, String field) {
    JsonNode value = line.get(field);
    check(
        value != null && value.isTextual(),
        "%s: expected a text, got %s".formatted(field, value == null ? "none" : "something else"));
    return line.path(field).asText();
  }

  private static List<String> texts(JsonNode line, String field) {
    JsonNode value = line.path(field);
    check(
        value.isArray(),
        "%s: expected a list of texts, got %s"
            .formatted(field, value.isMissingNode() ? "none" : "something else"));
    List<String> texts = new ArrayList<>();
    for (JsonNode each : value) {
      check(each.isTextual(), field + ": expected a list of texts, got something else in it");
      texts.add(each.asText());
    }
    return texts;
  }

  private static @Nullable Instant time(JsonNode line, String field) {
    if (!line.has(field)) {
      return null;
    }
    String text = text(line, field);
    try {
      return Instant.parse(text);
    } catch (DateTimeParseException e) {
      throw new IllegalArgumentException(
          "%s: expected a time such as 2027-01-31T00:00:00Z, got %s"
              .formatted(field, Quoted.of(text)),
          e);
    }
  }

  /** The line that {@link #of(JsonNode)} reads. */
  public ObjectNode toJson() {
    ObjectNode line = JsonNodeFactory.instance.objectNode();
    line.put("id", id).put("tenant", String.valueOf(caller.tenant()));
    ArrayNode names = line.putArray("scopes");
    caller.scopes().stream().sorted().forEach(scope -> names.add(scope.id()));
    ArrayNode patterns = line.putArray("adapters");
    adapters.forEach(patterns::add);
    if (hash != null) {
      line.put("sha256", hash);
    }
    if (certificate != null) {
      line.put("certificate", certificate);
    }
    if (created != null) {
      line.put("created", created.toString());
    }
    if (expires != null) {
      line.put("expires", expires.toString());
    }
    return line;
  }

  /**
   * That of a certificate where there is no file of keys: everything.
   *
   * @param name the certificate's common name
   */
  public static Grant certified(String name) {
    return new Grant(name, Caller.certified(name), List.of("*"), null, name, null, null);
  }

  /** Its scopes, for people. */
  public String describeScopes() {
    return caller.scopes().stream().sorted().map(Scope::id).collect(Collectors.joining(", "));
  }

  /** Whether it is worth nothing any more. */
  public boolean expired(Instant now) {
    return expires != null && !now.isBefore(expires);
  }

  /** For logs: no hash. */
  @Override
  public String toString() {
    return String.format(Locale.ROOT, "%s of %s", id, caller.tenant());
  }
}
