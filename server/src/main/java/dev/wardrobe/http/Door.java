package dev.wardrobe.http;

import dev.wardrobe.tenant.Caller;
import dev.wardrobe.tenant.Grant;
import dev.wardrobe.tenant.Keys;
import dev.wardrobe.tenant.Keys.Shown;
import io.vertx.core.http.HttpServerRequest;
import java.security.cert.Certificate;
import java.security.cert.CertificateParsingException;
import java.security.cert.X509Certificate;
import java.util.ArrayList;
import java.util.Collection;
import java.util.List;
import java.util.regex.Pattern;
import javax.naming.InvalidNameException;
import javax.naming.ldap.LdapName;
import javax.naming.ldap.Rdn;
import javax.net.ssl.SSLPeerUnverifiedException;
import org.jspecify.annotations.Nullable;

/**
 * Who comes in, for gRPC and HTTP alike: before anything else looks at a request, it says who asks
 * and whether they may. Costs a caller without a key no more than one hash, and never waits.
 */
final class Door {
  private static final String BEARER = "Bearer ";

  /**
   * Ways to write a path that could mean another to who looks at it later: parts that go up,
   * nothing between slashes, and letters, digits and -._~ that are encoded without need.
   */
  private static final Pattern CROOKED =
      Pattern.compile(
          "//|(/|^)\\.{1,2}(/|$)|\\\\|%(2[dDeE]|3[0-9]|4[1-9a-fA-F]|5[0-9aAfF]|6[1-9a-fA-F]|7[0-9aAeE])");

  private final @Nullable Keys keys;
  private final boolean certificates;
  private final Access access;
  private final Sites sites;

  /** What becomes of a request. */
  sealed interface Decision {
    /** It goes on. */
    record Admitted(Caller caller) implements Decision {}

    /** It does not, for this status of HTTP. */
    record Refused(int status, String message) implements Decision {}

    /** It has its answer. */
    record Answered() implements Decision {}
  }

  /**
   * @param keys null: none are asked for
   * @param certificates whether callers show certificates, which have been verified
   */
  Door(@Nullable Keys keys, boolean certificates, Access access, Sites sites) {
    this.keys = keys;
    this.certificates = certificates;
    this.access = access;
    this.sites = sites;
  }

  /** What becomes of a request; on its event loop. */
  Decision decide(HttpServerRequest request) {
    if (sites.preflight(request)) {
      return new Decision.Answered();
    }
    String refusal = sites.refusal(request);
    if (refusal != null) {
      return new Decision.Refused(403, refusal);
    }
    sites.mark(request);
    if (keys == null && !certificates) {
      return new Decision.Admitted(Caller.ANYONE);
    }
    String path = String.valueOf(request.path());
    if (CROOKED.matcher(path).find()) {
      return new Decision.Refused(
          400, "path: expected it plain, got one with '..', '//' or needless encoding");
    }
    Access.Need need = access.of(request.method().name(), path);
    if (need.open()) {
      return new Decision.Admitted(Caller.NOBODY);
    }
    return switch (show(request)) {
      case Shown.Refused refused -> new Decision.Refused(401, refused.why());
      case Shown.Known known ->
          need.isMetBy(known.grant().caller())
              ? new Decision.Admitted(known.grant().caller())
              : new Decision.Refused(
                  403,
                  "expected a key with scope %s, got '%s', which has %s"
                      .formatted(
                          need.describe(), known.grant().id(), known.grant().describeScopes()));
    };
  }

  private Shown show(HttpServerRequest request) {
    Keys known = keys;
    String key = key(request);
    if (known != null && key != null) {
      return known.show(key);
    }
    X509Certificate certificate = certificates ? certificate(request) : null;
    if (certificate != null) {
      List<String> names = names(certificate);
      if (known == null) {
        return names.isEmpty()
            ? new Shown.Refused("expected a certificate with a common name, got one without")
            : new Shown.Known(Grant.certified(names.getFirst()));
      }
      Shown shown = known.show(names);
      return shown != null
          ? shown
          : new Shown.Refused(
              "expected a key, or a certificate whose name is in the keys' file, got one whose name"
                  + " is not");
    }
    return new Shown.Refused(
        known == null
            ? "expected a certificate, got none"
            : "expected a key, as the header 'authorization: Bearer KEY' or 'api-key: KEY', got"
                + " none");
  }

  private static @Nullable String key(HttpServerRequest request) {
    String authorization = request.getHeader("authorization");
    if (authorization != null && !authorization.isBlank()) {
      return authorization.regionMatches(true, 0, BEARER, 0, BEARER.length())
          ? authorization.substring(BEARER.length()).strip()
          : authorization;
    }
    String key = request.getHeader("api-key");
    return key == null || key.isBlank() ? null : key.strip();
  }

  private static @Nullable X509Certificate certificate(HttpServerRequest request) {
    if (!request.connection().isSsl()) {
      return null;
    }
    try {
      List<Certificate> chain = request.connection().peerCertificates();
      return !chain.isEmpty() && chain.getFirst() instanceof X509Certificate first ? first : null;
    } catch (SSLPeerUnverifiedException e) {
      return null;
    }
  }

  /** The common name, then the DNS, e-mail and URI names. */
  private static List<String> names(X509Certificate certificate) {
    List<String> names = new ArrayList<>();
    try {
      for (Rdn part : new LdapName(certificate.getSubjectX500Principal().getName()).getRdns()) {
        if (part.getType().equalsIgnoreCase("CN") && part.getValue() instanceof String name) {
          names.add(0, name);
        }
      }
      Collection<List<?>> others = certificate.getSubjectAlternativeNames();
      if (others != null) {
        for (List<?> other : others) {
          // rfc822Name, dNSName, uniformResourceIdentifier
          if (other.get(1) instanceof String name
              && other.get(0) instanceof Integer kind
              && (kind == 1 || kind == 2 || kind == 6)) {
            names.add(name);
          }
        }
      }
    } catch (InvalidNameException | CertificateParsingException e) {
      // What could be read of them counts.
      return names;
    }
    return names;
  }
}
