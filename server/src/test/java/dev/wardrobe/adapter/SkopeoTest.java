package dev.wardrobe.adapter;

import static dev.wardrobe.adapter.AdapterStoreTest.TIME;
import static dev.wardrobe.adapter.AdapterStoreTest.publish;
import static dev.wardrobe.adapter.AdapterStoreTest.weights;
import static org.assertj.core.api.Assertions.assertThat;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** A store in the hands of skopeo, as Debian has it. */
final class SkopeoTest {
  @TempDir private Path temp;

  @BeforeAll
  static void find() throws InterruptedException {
    boolean found;
    try {
      Process process =
          new ProcessBuilder("skopeo", "--version")
              .redirectErrorStream(true)
              .redirectOutput(ProcessBuilder.Redirect.DISCARD)
              .start();
      found = process.waitFor() == 0;
    } catch (IOException e) {
      found = false;
    }
    assumeTrue(found, "NOT CHECKED: skopeo was not found (apt-get install skopeo)");
  }

  private String skopeo(String... words) throws Exception {
    List<String> command = new ArrayList<>(List.of("skopeo"));
    command.addAll(List.of(words));
    Path out = temp.resolve("out");
    Path err = temp.resolve("err");
    Process process =
        new ProcessBuilder(command)
            .redirectOutput(out.toFile())
            .redirectError(err.toFile())
            .start();
    assertThat(process.waitFor(60, TimeUnit.SECONDS)).isTrue();
    assertThat(process.exitValue()).as("%s: %s", command, Files.readString(err)).isZero();
    return Files.readString(out);
  }

  private static String digest(String manifest) {
    var sha = Manifest.sha256();
    sha.update(manifest.getBytes(StandardCharsets.UTF_8));
    return Manifest.digest(sha);
  }

  @Test
  void copy_thereAndBack_keepsTheDigest() throws Exception {
    Path ours = temp.resolve("ours");
    Path theirs = temp.resolve("theirs");
    Content one;
    Content two;
    Catalog catalog;
    try (AdapterStore store = AdapterStoreTest.open(ours)) {
      publish(store, "team/sup-port_x.y", "1", 1);
      one = publish(store, "support", "3", 30);
      two = publish(store, "support", "4.0+b1", 31);
      Catalog.Target split =
          new Catalog.Target(
              List.of(new Catalog.Share(one.digest(), 95), new Catalog.Share(two.digest(), 5)));
      catalog = store.update(c -> c.setAlias("support", "prod", split, null, TIME));

      // Beside a process that has the store open for writing.
      assertThat(digest(skopeo("inspect", "--raw", "oci:" + ours + ":support@prod")))
          .isEqualTo(one.digest());
      assertThat(skopeo("inspect", "--raw", "--config", "oci:" + ours + ":support@prod"))
          .isEqualTo(new String(AdapterStoreTest.config(30), StandardCharsets.US_ASCII));
      for (String tag : List.of("team/sup-port_x.y@1", "support@4.0+b1", "support@prod")) {
        skopeo("copy", "-q", "oci:" + ours + ":" + tag, "oci:" + theirs + ":" + tag);
      }
      for (String tag : List.of("support@prod", "support@latest", "new@9", "word@ok", "bare")) {
        skopeo("copy", "-q", "oci:" + theirs + ":support@prod", "oci:" + ours + ":" + tag);
      }
      assertThat(store.verify().faults()).isEmpty();
      assertThat(store.collect(Duration.ZERO).removed()).isZero();
      store.update(c -> c.publish("other", "1", one, TIME));
    }
    try (AdapterStore store = AdapterStoreTest.open(ours)) {
      assertThat(store.catalog().entry("support")).isEqualTo(catalog.entry("support"));
      assertThat(digest(skopeo("inspect", "--raw", "oci:" + ours + ":support@latest")))
          .isEqualTo(two.digest());
      assertThat(digest(skopeo("inspect", "--raw", "oci:" + ours + ":new@9")))
          .isEqualTo(one.digest());
    }

    // What skopeo alone made is a store, whose tags only need to be taken over.
    try (AdapterStore store = AdapterStoreTest.open(theirs)) {
      assertThat(store.catalog()).isEqualTo(Catalog.EMPTY);
      assertThat(store.collect(Duration.ZERO).removed()).isZero();
      assertThat(store.otherTags()).hasSize(3);
      assertThat(AdapterStoreTest.read(store, one.digest(), Adapter.WEIGHTS))
          .isEqualTo(weights(30));
    }
  }
}
