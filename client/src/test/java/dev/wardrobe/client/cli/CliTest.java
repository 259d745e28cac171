package dev.wardrobe.client.cli;

import static org.assertj.core.api.Assertions.assertThat;

import io.grpc.Status;
import java.io.PrintWriter;
import java.io.StringWriter;
import java.net.InetAddress;
import java.net.ServerSocket;
import org.junit.jupiter.api.Test;
import picocli.CommandLine;

final class CliTest {
  private final StringWriter out = new StringWriter();
  private final StringWriter err = new StringWriter();

  private int run(String... arguments) {
    CommandLine commands = Cli.commandLine();
    commands.setOut(new PrintWriter(out, true));
    commands.setErr(new PrintWriter(err, true));
    return commands.execute(arguments);
  }

  @Test
  void noServer_isOneLineThatSaysWhatToDo() throws Exception {
    int free;
    try (ServerSocket socket = new ServerSocket(0, 1, InetAddress.getLoopbackAddress())) {
      free = socket.getLocalPort();
    }
    assertThat(run("info", "--server", "127.0.0.1:" + free)).isEqualTo(3);
    assertThat(err.toString().lines())
        .singleElement()
        .asString()
        .contains("wardrobe serve")
        .contains("--server");
    assertThat(out.toString()).isEmpty();
  }

  @Test
  void explain_serverThatAnswers_isNotCalledAbsent() {
    assertThat(
            Failure.of(
                    Status.UNAVAILABLE
                        .withDescription("the server is shutting down; try another one")
                        .asRuntimeException())
                .message())
        .isEqualTo("the server is shutting down; try another one");
  }

  @Test
  void demo_withoutTheLauncher_saysSo() {
    assertThat(run("demo")).isEqualTo(1);
    assertThat(err.toString()).contains("deploy/wardrobe");
  }

  @Test
  void wrongUsage_exitsWithTwo() {
    assertThat(run("adapters")).isEqualTo(2);
    assertThat(run("nonsense")).isEqualTo(2);
  }

  @Test
  void adapter_neitherNameNorWeight_exitsWithTwo() {
    assertThat(run("generate", "--adapter", "sql=much", "hello")).isEqualTo(2);
    assertThat(err.toString()).contains("--adapter", "NAME=WEIGHT", "'sql=much'");
    assertThat(run("embed")).isEqualTo(2);
    assertThat(run("embed", "--pooling", "median", "hello")).isEqualTo(2);
  }

  @Test
  void help_listsEveryCommand() {
    assertThat(run("--help")).isZero();
    assertThat(out.toString())
        .contains("demo", "generate", "chat", "embed", "adapters", "info", "completion");
    assertThat(out.toString()).contains(Cli.ON_THIS_MACHINE);
  }

  @Test
  void benchLoad_refusesWhatIsNoLoad() {
    for (String[] wrong :
        new String[][] {
          {"--streams 0", "--streams"},
          {"--rounds 0", "--rounds"},
          {"--pick often", "--pick"},
          {"--prompt-tokens x", "--prompt-tokens"},
          {"--against nobody", "--against"},
        }) {
      err.getBuffer().setLength(0);
      assertThat(run(("bench load " + wrong[0]).split(" "))).as(wrong[0]).isEqualTo(2);
      assertThat(err.toString().lines().findFirst().orElse("")).contains(wrong[1]);
    }
    for (String wrong :
        new String[] {"", "--streams 3", "x --streams", "x --pick 'often", "x -y"}) {
      err.getBuffer().setLength(0);
      assertThat(run("bench", "load", "--case", wrong)).as(wrong).isEqualTo(2);
    }
    assertThat(run("bench", "load", "--case", "a", "--case", "a")).isEqualTo(2);
  }

  @Test
  void words_areCutAsAShellCutsThem() {
    assertThat(Words.of("  one 'two three' fo\"u r\"x ''  "))
        .containsExactly("one", "two three", "fou rx", "");
  }
}
