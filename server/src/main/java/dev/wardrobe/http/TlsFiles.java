package dev.wardrobe.http;

import io.vertx.core.Vertx;
import io.vertx.core.buffer.Buffer;
import io.vertx.core.http.ClientAuth;
import io.vertx.core.net.PemKeyCertOptions;
import io.vertx.core.net.PemTrustOptions;
import io.vertx.core.net.ServerSSLOptions;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.attribute.BasicFileAttributes;
import java.security.GeneralSecurityException;
import java.security.PrivateKey;
import java.security.Signature;
import java.security.cert.X509Certificate;
import java.util.List;
import java.util.stream.Stream;
import javax.net.ssl.KeyManager;
import javax.net.ssl.X509KeyManager;
import org.jspecify.annotations.Nullable;

/** The files that encryption comes from, checked before they are used. One thread at a time. */
final class TlsFiles {
  private static final int LARGEST = 1 << 20;

  private final FrontOptions.Tls files;
  private final ClientAuth clients;
  private String stamp = "";

  /**
   * @param required whether nobody gets in without a certificate
   */
  TlsFiles(FrontOptions.Tls files, boolean required) {
    this.files = files;
    this.clients =
        files.clientCa() == null
            ? ClientAuth.NONE
            : required ? ClientAuth.REQUIRED : ClientAuth.REQUEST;
  }

  /**
   * What they say now, if that is something new.
   *
   * @return null if they are as they were
   * @throws IOException if they cannot be read, or do not fit each other; said once for each change
   */
  @Nullable ServerSSLOptions read(Vertx vertx) throws IOException {
    String now = stamp();
    if (now.equals(stamp)) {
      return null;
    }
    stamp = now;
    PemKeyCertOptions own =
        new PemKeyCertOptions()
            .setCertValue(bytes("tls-cert", files.certificate()))
            .setKeyValue(bytes("tls-key", files.key()));
    check(vertx, own);
    ServerSSLOptions options =
        new ServerSSLOptions().setKeyCertOptions(own).setClientAuth(clients).setUseAlpn(true);
    options.setApplicationLayerProtocols(List.of("h2", "http/1.1"));
    Path authority = files.clientCa();
    if (authority != null) {
      PemTrustOptions trusted =
          new PemTrustOptions().addCertValue(bytes("tls-client-ca", authority));
      try {
        var _ = trusted.getTrustManagerFactory(vertx);
      } catch (Exception e) {
        throw new IOException(
            "--tls-client-ca: expected certificates in PEM form in %s, got something else"
                .formatted(authority),
            e);
      }
      options.setTrustOptions(trusted);
    }
    return options;
  }

  private String stamp() throws IOException {
    StringBuilder stamp = new StringBuilder();
    for (Path path :
        Stream.of(files.certificate(), files.key(), files.clientCa())
            .flatMap(Stream::ofNullable)
            .toList()) {
      BasicFileAttributes attributes;
      try {
        attributes = Files.readAttributes(path, BasicFileAttributes.class);
      } catch (IOException e) {
        throw new IOException(path + ": expected a file in PEM form, got none", e);
      }
      stamp
          .append(attributes.lastModifiedTime())
          .append(attributes.size())
          .append(attributes.fileKey());
    }
    return stamp.toString();
  }

  private static Buffer bytes(String option, Path path) throws IOException {
    try (var in = Files.newInputStream(path)) {
      byte[] bytes = in.readNBytes(LARGEST + 1);
      if (bytes.length > LARGEST) {
        throw new IOException(
            "--%s: expected at most %d bytes in %s, got more".formatted(option, LARGEST, path));
      }
      return Buffer.buffer(bytes);
    } catch (java.nio.file.FileSystemException e) {
      throw new IOException(
          "--%s: %s cannot be read; check its permissions".formatted(option, path), e);
    }
  }

  private void check(Vertx vertx, PemKeyCertOptions own) throws IOException {
    KeyManager[] managers;
    try {
      managers = own.getKeyManagerFactory(vertx).getKeyManagers();
    } catch (Exception e) {
      throw new IOException(
          "--tls-cert, --tls-key: expected a certificate in %s and its key, PKCS #8, in %s, both in"
                  .formatted(files.certificate(), files.key())
              + " PEM form, got something else",
          e);
    }
    for (KeyManager manager : managers) {
      if (manager instanceof X509KeyManager keys) {
        for (String kind : List.of("RSA", "EC", "EdDSA")) {
          String[] names = keys.getServerAliases(kind, null);
          for (String name : names == null ? new String[0] : names) {
            checkPair(keys.getPrivateKey(name), keys.getCertificateChain(name)[0]);
          }
        }
      }
    }
  }

  private void checkPair(PrivateKey key, X509Certificate certificate) throws IOException {
    String algorithm =
        switch (key.getAlgorithm()) {
          case "RSA" -> "SHA256withRSA";
          case "EC" -> "SHA256withECDSA";
          default -> "EdDSA";
        };
    try {
      byte[] probe = {1, 2, 3};
      Signature signing = Signature.getInstance(algorithm);
      signing.initSign(key);
      signing.update(probe);
      Signature verifying = Signature.getInstance(algorithm);
      verifying.initVerify(certificate);
      verifying.update(probe);
      if (verifying.verify(signing.sign())) {
        return;
      }
    } catch (GeneralSecurityException e) {
      // Of two kinds, it seems.
    }
    throw new IOException(
        "--tls-key: expected the key of the certificate in %s, got another one in %s"
            .formatted(files.certificate(), files.key()));
  }
}
