package dev.wardrobe;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.wardrobe.adapter.AdapterOptions;
import dev.wardrobe.bench.AdapterSet;
import dev.wardrobe.client.load.CanarySet;
import dev.wardrobe.client.load.Churn;
import dev.wardrobe.client.load.ChurnException;
import dev.wardrobe.client.load.ChurnOptions;
import dev.wardrobe.client.load.ChurnReport;
import dev.wardrobe.client.load.Connection;
import dev.wardrobe.compute.Backend;
import dev.wardrobe.compute.Lora;
import dev.wardrobe.http.HttpFrontend;
import dev.wardrobe.model.ModelConfig;
import java.io.PrintWriter;
import java.io.Writer;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Proxy;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.function.UnaryOperator;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;
import picocli.CommandLine;

/** A small churn, through gRPC, against a server in this process. */
@Timeout(180)
final class ChurnTest {
  private static final Path MODEL =
      Path.of(System.getProperty("wardrobe.root"), "deploy", "models", "demo", "base");
  private static final int ADAPTERS = 24;

  /** Several times less than the adapters need. */
  private static final String ADAPTER_MIB = "1";

  private static final ChurnOptions OPTIONS = new ChurnOptions(ADAPTERS, 5, 600, 8, 2, 2, 11);

  @TempDir static Path temp;

  private static Path folder;

  @BeforeAll
  static void makeCanaries() throws Exception {
    folder = temp.resolve("set");
    ModelConfig config = ModelConfig.read(MODEL);
    AdapterSet set = AdapterSet.make(folder, config, ADAPTERS, 1, 2, List.of(2, 4));
    try (Canaries canaries = new Canaries(MODEL, config, set)) {
      canaries.tellApart(new PrintWriter(Writer.nullWriter()));
    }
  }

  /** A churn against a server of its own. */
  private static ChurnReport churn(
      ChurnOptions options, UnaryOperator<Backend> around, Runnable whenItBegins) throws Exception {
    ModelArguments arguments = new ModelArguments(0);
    new CommandLine(arguments)
        .parseArgs("--model", MODEL.toString(), "--adapter-cache-mib", ADAPTER_MIB);
    Path store = Files.createTempDirectory(temp, "store");
    try (Stack stack =
            new Stack(arguments, List.of(folder), store, AdapterOptions.DEFAULT, around);
        HttpFrontend frontend = stack.frontend(List.of());
        Connection connection = new Connection("127.0.0.1:" + frontend.listen("127.0.0.1", 0), 1)) {
      return new Churn(
              connection,
              ProcessHandle.current(),
              CanarySet.read(folder),
              options,
              line -> {
                if (line.contains("now all at once")) {
                  whenItBegins.run();
                }
              })
          .run();
    }
  }

  @Test
  void adaptersThatComeAndGo_changeNoAnswer() throws Exception {
    ChurnReport report = churn(OPTIONS, UnaryOperator.identity(), () -> {});
    assertThat(report.wrong().first()).isEmpty();
    assertThat(report.lost().first()).isEmpty();
    assertThat(report.failedChanges().first()).isEmpty();
    assertThat(report.leftovers()).isEmpty();
    assertThat(report.right() + report.refused() + report.cancelled())
        .isEqualTo(OPTIONS.requests());
    // It was a churn.
    assertThat(report.right()).isGreaterThan(OPTIONS.requests() / 2);
    assertThat(report.cancelled()).isPositive();
    assertThat(report.swapIns()).isGreaterThan(ADAPTERS);
    assertThat(report.changes()).containsKeys("bound anew", "published");
  }

  /** A backend that, once, hands out another adapter's memory than it was asked for. */
  private static final class Swap implements UnaryOperator<Backend> {
    private Backend backend;
    private Object another;
    private boolean armed;
    private boolean swapped;

    synchronized void arm() {
      armed = true;
    }

    @Override
    public Backend apply(Backend real) {
      backend = real;
      return (Backend)
          Proxy.newProxyInstance(
              Backend.class.getClassLoader(),
              new Class<?>[] {Backend.class},
              (_, method, arguments) -> {
                try {
                  return method.getName().equals("lora")
                      ? lora(
                          method.invoke(backend, arguments),
                          () -> method.invoke(backend, arguments))
                      : method.invoke(backend, arguments);
                } catch (InvocationTargetException e) {
                  throw e.getCause();
                }
              });
    }

    private interface Upload {
      Object again() throws ReflectiveOperationException;
    }

    private synchronized Object lora(Object asked, Upload upload)
        throws ReflectiveOperationException {
      if (!armed || swapped) {
        return asked;
      }
      if (another == null) {
        // Memory is full by now: who comes from here on comes after an eviction.
        another = upload.again();
        return asked;
      }
      swapped = true;
      ((Lora) asked).close();
      return another;
    }
  }

  @Test
  void plantedSwap_isFound() throws Exception {
    Swap swap = new Swap();
    ChurnReport report = churn(new ChurnOptions(ADAPTERS, 0, 600, 8, 0, 50, 12), swap, swap::arm);
    assertThat(swap.swapped).isTrue();
    assertThat(report.passed()).isFalse();
    assertThat(report.wrong().count()).isPositive();
    assertThat(report.wrong().first().getFirst())
        .containsPattern(
            "sha256:[0-9a-f]{64} answers \\[.*] alone, got \\[.*], which is what sha256");
    assertThat(report.lost().first()).isEmpty();
  }

  @Test
  void adaptersThatAnswerAlike_areNoCanaries() throws Exception {
    Path alike = temp.resolve("alike");
    AdapterSet set = AdapterSet.make(alike, ModelConfig.read(MODEL), 3, 1, 1e-6, List.of(2));
    set.tellApart(List.of(List.of(100, 200, 300)));
    Path before = folder;
    folder = alike;
    try {
      assertThatThrownBy(() -> churn(OPTIONS, UnaryOperator.identity(), () -> {}))
          .isInstanceOf(ChurnException.class)
          .hasMessageContaining("differ within 4 tokens");
    } finally {
      folder = before;
    }
  }
}
