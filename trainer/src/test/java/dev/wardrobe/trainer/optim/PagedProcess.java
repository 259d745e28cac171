package dev.wardrobe.trainer.optim;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.List;
import java.util.Locale;

/**
 * A process that trains nothing in particular with a paged optimizer: {@code FOLDER BUDGET STEPS
 * ELEMENTS}, and then says what it is. It goes on from the folder's state, if there is one, and
 * saves it after each step.
 */
final class PagedProcess {
  private PagedProcess() {}

  public static void main(String[] args) throws IOException {
    Path folder = Path.of(args[0]);
    long budget = Long.parseLong(args[1]);
    int steps = Integer.parseInt(args[2]);
    int elements = Integer.parseInt(args[3]);
    Path state = folder.resolve("state");
    PagerOptions paging = new PagerOptions(budget, 1 << 18, 4, 0, folder.resolve("pages"));
    try (Trained trained = new Trained(2, 11, new int[] {1, elements});
        Optimizer optimizer =
            new Optimizer(
                trained.parameters,
                OptimizerOptions.named("paged_adamw_32bit"),
                trained.backend,
                paging)) {
      if (Files.exists(state)) {
        optimizer.load(state);
      }
      trained.gradients(1);
      while (optimizer.steps() < steps) {
        optimizer.step(0.01);
        if (elements < 1 << 20) {
          optimizer.save(state);
        }
      }
      System.gc();
      System.out.println("steps=" + optimizer.steps());
      System.out.println("anonymous=" + status("rssanon"));
      System.out.println("data=" + status("vmdata"));
      System.out.println("frames=" + optimizer.paging().residentBytes());
      System.out.println("values=" + Arrays.hashCode(trained.values(0)));
    } catch (OptimizerException e) {
      System.out.println("error=" + e.getMessage());
      System.exit(3);
    }
  }

  /** Bytes that the system says: resident and backed by no file, or private and writable. */
  private static long status(String what) throws IOException {
    List<String> lines = Files.readAllLines(Path.of("/proc/self/status"));
    for (String line : lines) {
      if (line.toLowerCase(Locale.ROOT).startsWith(what + ":")) {
        return Long.parseLong(line.replaceAll("\\D", "")) * 1024;
      }
    }
    return 0;
  }
}
