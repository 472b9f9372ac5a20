import com.example.stubs.demo.v1.News;
import com.example.stubs.trestle.v1.BridgeGrpc;
import com.example.stubs.trestle.v1.Envelope;
import com.example.stubs.trestle.v1.PushReport;
import com.example.stubs.trestle.v1.PushRequest;
import com.example.stubs.trestle.v1.Target;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import io.grpc.StatusRuntimeException;
import java.util.concurrent.TimeUnit;

/** {@code Push GRPC_ADDR}: pushes to a channel and to nowhere by grpc-java; prints one JSON line of what it was told. */
public final class Push {
    public static void main(String[] arguments) throws InterruptedException {
        ManagedChannel channel = Grpc.newChannelBuilder(arguments[0], InsecureChannelCredentials.create()).build();
        try {
            BridgeGrpc.BridgeBlockingStub bridge = BridgeGrpc.newBlockingStub(channel).withDeadlineAfter(20, TimeUnit.SECONDS);
            Envelope news = Envelope.newBuilder()
                .setMessageType("demo.v1.News")
                .setPayload(News.newBuilder().setText("from Java").setNumber(1).build().toByteString())
                .build();
            Target target = Target.newBuilder().setChannel("live:news").build();
            PushReport report = bridge.push(PushRequest.newBuilder().setTarget(target).setMessage(news).build()).getReport();
            System.out.printf(
                "{\"dropped\":%d,\"delivered\":%d,\"refused\":\"%s\"}%n",
                report.getDropped(), report.getDelivered(), refusal(bridge, PushRequest.newBuilder().setMessage(news).build()));
        } finally {
            channel.shutdownNow().awaitTermination(5, TimeUnit.SECONDS);
        }
    }

    private static String refusal(BridgeGrpc.BridgeBlockingStub bridge, PushRequest request) {
        try {
            return "no, " + bridge.push(request);
        } catch (StatusRuntimeException refused) {
            return refused.getStatus().getCode().name();
        }
    }
}
