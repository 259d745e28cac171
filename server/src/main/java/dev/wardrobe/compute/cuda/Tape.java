package dev.wardrobe.compute.cuda;

import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import jcuda.driver.CUgraph;
import jcuda.driver.CUgraphExec;
import jcuda.driver.CUresult;
import jcuda.driver.CUstreamCaptureMode;
import jcuda.driver.JCudaDriver;
import org.jspecify.annotations.Nullable;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * What a step is made of. The operations of a step whose sizes are new are launched one by one, and
 * noted; once the step is done they are captured as a graph. A later step of these sizes only
 * compares its operations with those noted, and at its end launches the graph, once. One that
 * departs from them launches what it has compared so far, and goes on one by one.
 *
 * <p>Belongs to the step that it was made for: its graphs read that step's tables.
 */
final class Tape implements AutoCloseable {
  private static final Logger LOG = LoggerFactory.getLogger(Tape.class);

  /** Graphs that are kept; beyond them the one that was not used for longest goes. */
  private static final int KEPT = 64;

  /**
   * Sizes that grids depend on, rounded up so that few differ.
   *
   * @param rows tokens
   * @param outputs rows of logits
   * @param chunks of the longest context
   * @param rank of the adapters, and 1 more; 0 if there are none
   * @param depth adapters of the largest mix
   */
  record Sizes(int rows, int outputs, int chunks, int rank, int depth) {}

  /** Steps in a row that departed from a graph before another takes its place. */
  private static final int PATIENCE = 2;

  private static final class Graph {
    private final List<Op> ops;
    private final CUgraphExec executable;
    private int departures;

    Graph(List<Op> ops, CUgraphExec executable) {
      this.ops = ops;
      this.executable = executable;
    }
  }

  private final Gpu gpu;
  private final Map<Sizes, Graph> graphs =
      new LinkedHashMap<>(16, 0.75f, true) {
        @Override
        protected boolean removeEldestEntry(Map.Entry<Sizes, Graph> eldest) {
          if (size() <= KEPT) {
            return false;
          }
          destroy(eldest.getValue());
          return true;
        }
      };

  private @Nullable CudaStep step;
  private @Nullable Sizes sizes;
  private @Nullable Graph replayed;
  private final List<Op> ops = new ArrayList<>();
  private int matched;
  private long replays;

  Tape(Gpu gpu) {
    this.gpu = gpu;
  }

  /**
   * Begins a step.
   *
   * @param sizes null if its operations are not to be kept
   */
  void begin(CudaStep step, @Nullable Sizes sizes) {
    this.step = step;
    this.sizes = sizes;
    replayed = sizes == null ? null : graphs.get(sizes);
    matched = 0;
    ops.clear();
  }

  /** The next operation of the step. */
  void add(Op op) {
    CudaStep current = step;
    if (current == null) {
      throw new IllegalStateException("an operation of a step that is closed");
    }
    if (replayed != null) {
      if (matched < replayed.ops.size() && replayed.ops.get(matched).equals(op)) {
        matched++;
        return;
      }
      launchMatched(replayed, current);
    }
    op.launch(gpu, current);
    if (sizes != null) {
      ops.add(op);
    }
  }

  /** Sees to it that all operations so far are queued. */
  void flush() {
    CudaStep current = step;
    if (replayed != null && current != null) {
      if (matched == replayed.ops.size()) {
        gpu.enter();
        gpu.check("cuGraphLaunch", JCudaDriver.cuGraphLaunch(replayed.executable, gpu.compute()));
        replays++;
        replayed.departures = 0;
        // What comes after it is not kept: a step of these sizes has its graph.
        replayed = null;
        sizes = null;
      } else if (matched > 0) {
        launchMatched(replayed, current);
      }
    }
  }

  private void launchMatched(Graph graph, CudaStep current) {
    // The graph stays for now: the next step is as likely to be what it was made of.
    Sizes departed = sizes;
    if (departed != null && ++graph.departures == PATIENCE) {
      graphs.remove(departed);
      destroy(graph);
    }
    replayed = null;
    sizes = null;
    for (int i = 0; i < matched; i++) {
      graph.ops.get(i).launch(gpu, current);
    }
  }

  /** Ends the step; its operations become a graph if their sizes had none, or another one. */
  void end() {
    CudaStep current = step;
    if (current == null) {
      return;
    }
    flush();
    Sizes noted = sizes;
    if (noted != null && !ops.isEmpty()) {
      try {
        graphs.put(noted, capture(current, List.copyOf(ops)));
      } catch (IllegalStateException e) {
        // What the step worked on was closed before it: no later step can be the same.
        graphs.remove(noted);
      } catch (CudaException e) {
        // The step itself is done. Without a graph those of its sizes are slower, and right.
        LOG.warn("a step of {} is not replayed as a graph: {}", noted, e.getMessage());
      }
    }
    abandon();
  }

  /** Ends the step; nothing of it is kept, and what was only compared is not launched. */
  void abandon() {
    step = null;
    sizes = null;
    replayed = null;
    ops.clear();
  }

  private Graph capture(CudaStep current, List<Op> captured) {
    synchronized (gpu.order()) {
      return captureInOrder(current, captured);
    }
  }

  private Graph captureInOrder(CudaStep current, List<Op> captured) {
    gpu.enter();
    CUgraph graph = new CUgraph();
    gpu.check(
        "cuStreamBeginCapture",
        JCudaDriver.cuStreamBeginCapture(
            gpu.compute(), CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL));
    RuntimeException failure = null;
    try {
      for (Op op : captured) {
        op.launch(gpu, current);
      }
    } catch (RuntimeException e) {
      failure = e;
    }
    int code = JCudaDriver.cuStreamEndCapture(gpu.compute(), graph);
    if (failure != null) {
      if (code == CUresult.CUDA_SUCCESS) {
        JCudaDriver.cuGraphDestroy(graph);
      }
      throw failure;
    }
    gpu.check("cuStreamEndCapture", code);
    CUgraphExec executable = new CUgraphExec();
    try {
      gpu.check("cuGraphInstantiate", JCudaDriver.cuGraphInstantiate(executable, graph, 0));
    } finally {
      JCudaDriver.cuGraphDestroy(graph);
    }
    return new Graph(captured, executable);
  }

  /** Forgets all graphs: the tables that they read are elsewhere now. */
  void forget() {
    if (replayed != null && step != null) {
      launchMatched(replayed, step);
    }
    graphs.values().forEach(this::destroy);
    graphs.clear();
  }

  /** Steps that were one launch so far. */
  long replays() {
    return replays;
  }

  private void destroy(Graph graph) {
    if (gpu.usable()) {
      gpu.enter();
      JCudaDriver.cuGraphExecDestroy(graph.executable);
    }
  }

  @Override
  public void close() {
    abandon();
    forget();
  }
}
