package dev.wardrobe.adapter;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.wardrobe.adapter.AdapterException.Reason;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;

/** The registry over real files, a real base and a real backend. */
@Timeout(120)
final class AdapterRegistryFilesTest {
  private static final Path GOOD = Adapters.resource("golden/adapters/llama_mha");
  private static final Path BAD = Adapters.resource("golden/adapters_bad");

  @TempDir Path temp;

  private final ExecutorService loaders = Executors.newFixedThreadPool(2);
  private Path root;
  private Base base;
  private long before;
  private AdapterRegistry registry;

  @BeforeEach
  void open() throws Exception {
    root = Files.createDirectories(temp.resolve("root"));
    for (Path adapter : Adapters.directories(GOOD)) {
      Adapters.copy(adapter, root.resolve(adapter.getFileName().toString()));
    }
    base = Base.of("llama_mha-nf4-dq");
    before = base.backend.liveBytes();
    registry =
        new AdapterRegistry(
            base.model, base.backend, List.of(root), AdapterOptions.DEFAULT, loaders);
    // Made resident for a moment, as what DoRA divides by is known only then.
    registry.prefetchBy(
        lease ->
            lease
                .upload(() -> true)
                .thenApply(
                    resident -> {
                      resident.close();
                      return true;
                    })
                .whenComplete((_, _) -> lease.close()));
  }

  @AfterEach
  void close() {
    registry.close();
    loaders.close();
    assertThat(base.backend.liveBytes()).as("bytes left").isEqualTo(before);
    base.close();
    assertThat(base.backend.liveBytes()).isZero();
  }

  private AdapterException refusal(CompletableFuture<?> future) throws Exception {
    try {
      future.get();
    } catch (ExecutionException e) {
      if (e.getCause() instanceof AdapterException refusal) {
        return refusal;
      }
      throw e;
    }
    throw new AssertionError("accepted");
  }

  @Test
  void lease_everyAdapterOfTheRoot() throws Exception {
    List<Lease> leases = new ArrayList<>();
    List<Resident> residents = new ArrayList<>();
    for (Path adapter : Adapters.directories(GOOD)) {
      Lease lease = registry.lease(adapter.getFileName().toString()).get();
      Resident resident = lease.upload(() -> true).get();
      assertThat(lease.deviceBytes()).isPositive().isEqualTo(resident.bytes());
      leases.add(lease);
      residents.add(resident);
    }
    assertThat(registry.list()).hasSize(leases.size()).allMatch(AdapterEntry::resident);
    // What a backend keeps on the heap counts as resident, but not as live.
    assertThat(base.backend.liveBytes() - before)
        .isPositive()
        .isLessThanOrEqualTo(registry.residentBytes());
    assertThat(registry.get("dora_r8").kind()).isEqualTo("dora");
    assertThat(registry.get("rslora_r32").kind()).isEqualTo("rslora");
    assertThat(registry.get("rslora_r32").rank()).isEqualTo(32);
    assertThat(registry.get("all_linear_r16").modules()).isEqualTo(14);
    leases.forEach(Lease::close);
    residents.forEach(Resident::close);
    assertThat(registry.list()).noneMatch(AdapterEntry::resident);
  }

  @Test
  void load_everythingMalformedLeavesNothing() throws Exception {
    for (Path bad : Adapters.directories(BAD)) {
      String name = bad.getFileName().toString();
      Adapters.copy(bad, root.resolve("bad").resolve(name));
      AdapterException refusal = refusal(registry.load(name, "bad/" + name));
      assertThat(refusal.getMessage())
          .startsWith("adapter '" + name + "': ")
          .doesNotContain(root.toString(), "\n");
      assertThat(refusal(registry.lease("bad/" + name)).reason()).isEqualTo(refusal.reason());
      assertThatThrownBy(() -> registry.loadTrusted(name, bad))
          .isInstanceOf(AdapterException.class);
      assertThat(base.backend.liveBytes()).as(name).isEqualTo(before);
    }
    assertThat(registry.list()).isEmpty();
    assertThat(registry.residentBytes()).isZero();
  }

  @Test
  void load_linkOutOfTheRoot() throws Exception {
    Path outside = temp.resolve("outside");
    Adapters.copy(GOOD.resolve("lora_r8_qv"), outside);
    Files.createSymbolicLink(root.resolve("link"), outside);
    assertThat(refusal(registry.load("a", "link")).reason()).isEqualTo(Reason.REFUSED_PATH);
    assertThat(refusal(registry.lease("link")).reason()).isEqualTo(Reason.REFUSED_PATH);
    for (String file : List.of(AdapterConfig.FILE, Adapter.WEIGHTS)) {
      Path directory = root.resolve("with_link_" + file.charAt(8));
      Adapters.copy(GOOD.resolve("lora_r8_qv"), directory);
      Files.delete(directory.resolve(file));
      Files.createSymbolicLink(directory.resolve(file), outside.resolve(file));
      assertThat(refusal(registry.load("a", directory.getFileName().toString())).reason())
          .as(file)
          .isEqualTo(Reason.REFUSED_PATH);
    }
    // The operator's own directories may be links.
    registry.loadTrusted("a", root.resolve("link"));
  }

  @Test
  void load_deepJson() throws Exception {
    Path directory = root.resolve("deep");
    Adapters.copy(GOOD.resolve("lora_r8_qv"), directory);
    Files.writeString(
        directory.resolve(AdapterConfig.FILE),
        "{\"peft_type\": \"LORA\", \"auto_mapping\": " + "{\"a\":".repeat(1_000_000));
    assertThat(refusal(registry.load("deep", null)).reason()).isEqualTo(Reason.TOO_LARGE);
    Files.writeString(
        directory.resolve(AdapterConfig.FILE),
        "{\"peft_type\": \"LORA\", \"auto_mapping\": " + "[".repeat(1_000_000));
    assertThat(refusal(registry.load("deep", null))).hasMessageContaining("deep");
  }

  @Test
  void load_replacedOnDiskAndUnloadedInUse() throws Exception {
    registry.load("a", "lora_r8_qv").get();
    Lease old = registry.lease("a").get();
    Resident resident = old.upload(() -> true).get();
    long one = base.backend.liveBytes();
    assertThat(one).isGreaterThan(before);
    for (String file : List.of(AdapterConfig.FILE, Adapter.WEIGHTS)) {
      Files.copy(
          GOOD.resolve("dora_r8").resolve(file),
          root.resolve("lora_r8_qv").resolve(file),
          StandardCopyOption.REPLACE_EXISTING);
    }
    AdapterEntry fresh = registry.load("a", "lora_r8_qv").get();
    assertThat(fresh.kind()).isEqualTo("dora");
    assertThat(fresh.digest()).isNotEqualTo(old.digest());
    assertThat(resident.wanted()).isFalse();
    resident.close();
    assertThat(base.backend.liveBytes()).isLessThan(one);
    // Its files are others by now; the copy on the host is not.
    Resident again = old.upload(() -> true).get();
    assertThat(again.digest()).isEqualTo(old.digest());
    assertThat(base.backend.liveBytes()).isEqualTo(one);
    assertThat(registry.unload("a").digest()).isEqualTo(fresh.digest());
    assertThat(registry.residentBytes()).isEqualTo(again.bytes());
    old.close();
    again.close();
    assertThat(base.backend.liveBytes()).isEqualTo(before);
  }

  @Test
  void constructor_rootThatIsNotThere() {
    assertThatThrownBy(
            () ->
                new AdapterRegistry(
                    base.model,
                    base.backend,
                    List.of(temp.resolve("nothing")),
                    AdapterOptions.DEFAULT,
                    loaders))
        .isInstanceOf(AdapterException.class)
        .hasMessageContaining("--adapter-root");
  }
}
