package dev.wardrobe.client.cli;

import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.wardrobe.client.WardrobeClient;
import dev.wardrobe.v1.EmbedInput;
import dev.wardrobe.v1.EmbedRequest;
import dev.wardrobe.v1.EmbedResponse;
import dev.wardrobe.v1.Embedding;
import dev.wardrobe.v1.Pooling;
import io.grpc.StatusRuntimeException;
import java.io.IOException;
import java.io.PrintWriter;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.Callable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Option;
import picocli.CommandLine.ParameterException;
import picocli.CommandLine.Parameters;
import picocli.CommandLine.Spec;

/** Vectors for texts, one JSON object a line. */
@Command(
    name = "embed",
    description = {
      "Turns texts into vectors, as JSON lines of text, tokens and values.",
      "A text of - is standard input, each of its lines a text."
    },
    mixinStandardHelpOptions = true)
final class EmbedCommand implements Callable<Integer> {
  /** Texts of one call: the server takes so many. */
  private static final int MOST = 1024;

  private static final ObjectMapper JSON = new ObjectMapper();

  /** How hidden states become one vector. */
  private enum By {
    MEAN(Pooling.POOLING_MEAN),
    LAST(Pooling.POOLING_LAST);

    private final Pooling pooling;

    By(Pooling pooling) {
      this.pooling = pooling;
    }
  }

  @Spec private CommandSpec spec;
  @Mixin private ServerOption server;
  @Mixin private AdapterOption adapter;

  @Parameters(paramLabel = "TEXT", arity = "1..*", description = "The texts.")
  private List<String> texts = List.of();

  @Option(
      names = "--pooling",
      paramLabel = "mean|last",
      description = "The mean over all tokens (default), or the last token's vector.")
  private By by = By.MEAN;

  @Option(names = "--raw", description = "Leave the vectors as long as they are.")
  private boolean raw;

  @Option(names = "--json", description = "Print JSON lines, as without.")
  @SuppressWarnings("UnusedVariable") // there is no other form; errors are JSON with it
  private boolean json;

  @Override
  public Integer call() throws IOException, UnknownAdapterException {
    List<String> all = new ArrayList<>();
    for (String text : texts) {
      if (text.equals("-")) {
        new String(System.in.readAllBytes(), StandardCharsets.UTF_8)
            .lines()
            .filter(line -> !line.isEmpty())
            .forEach(all::add);
      } else {
        all.add(text);
      }
    }
    if (all.isEmpty()) {
      throw new ParameterException(spec.commandLine(), "standard input has no text");
    }
    PrintWriter out = spec.commandLine().getOut();
    EmbedRequest.Builder request =
        EmbedRequest.newBuilder().setPooling(by.pooling).setNormalize(!raw);
    adapter.in(request);
    try (WardrobeClient client = server.connect()) {
      for (int from = 0; from < all.size(); from += MOST) {
        List<String> some = all.subList(from, Math.min(all.size(), from + MOST));
        request.clearInputs();
        some.forEach(text -> request.addInputs(EmbedInput.newBuilder().setText(text)));
        EmbedResponse response = client.embed(request.build());
        for (int i = 0; i < some.size(); i++) {
          out.println(line(some.get(i), response.getEmbeddings(i)));
        }
        ClosedPipeException.check(out);
      }
    } catch (StatusRuntimeException e) {
      adapter.refused(e, server);
      throw e;
    }
    return ExitCode.DONE;
  }

  private static String line(String text, Embedding embedding) {
    ObjectNode line = JSON.createObjectNode();
    line.put("text", text).put("tokens", embedding.getTokens());
    ArrayNode values = line.putArray("values");
    embedding.getValuesList().forEach(values::add);
    return line.toString();
  }
}
